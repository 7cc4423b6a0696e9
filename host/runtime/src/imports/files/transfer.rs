//! Files on their way from one connection to another, as a guest follows them.

use wasmtime::component::Resource;
use wharf_connectors::{Error, FileResult, IfPresent, Outcome, Transfer, TransferOptions, Verify};

use super::{GrantedRemote, host_filter, wit};
use crate::guest::Guest;
use crate::imports::{Answer, told};
use crate::settings::Access;

/// A transfer that a guest started.
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GuestTransfer(Transfer);

impl wit::HostTransfer for Guest {
    async fn start(
        &mut self,
        source: Resource<GrantedRemote>,
        source_path: String,
        target: Resource<GrantedRemote>,
        target_path: String,
        options: wit::TransferOptions,
    ) -> Answer<Resource<GuestTransfer>> {
        let (source, target) = (self.granted(&source)?, self.granted(&target)?);
        let work = async {
            let access = if options.delete_source { Access::Write } else { Access::Read };
            let from = source.allow(access, &source_path)?;
            let to = target.allow(Access::Write, &target_path)?;
            wharf_connectors::transfer(&source.remote, &from, &target.remote, &to, host_options(&options)?).await
        };
        match work.await {
            Ok(transfer) => Ok(Ok(self.table.push(GuestTransfer(transfer))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn next(&mut self, transfer: Resource<GuestTransfer>) -> wasmtime::Result<Option<wit::FileResult>> {
        let result = self.table.get_mut(&transfer)?.0.next().await;
        Ok(result.map(guest_result))
    }

    async fn progress(&mut self, transfer: Resource<GuestTransfer>) -> wasmtime::Result<wit::Progress> {
        let progress = self.table.get(&transfer)?.0.progress();
        Ok(wit::Progress {
            files_found: progress.files_found,
            files_transferred: progress.files_transferred,
            files_skipped: progress.files_skipped,
            files_failed: progress.files_failed,
            bytes_found: progress.bytes_found,
            bytes_transferred: progress.bytes_transferred,
            is_counted: progress.is_counted,
        })
    }

    async fn drop(&mut self, transfer: Resource<GuestTransfer>) -> wasmtime::Result<()> {
        self.table.delete(transfer)?;
        Ok(())
    }
}

fn host_options(options: &wit::TransferOptions) -> Result<TransferOptions, Error> {
    Ok(TransferOptions {
        if_present: match options.if_present {
            wit::IfPresent::Fail => IfPresent::Fail,
            wit::IfPresent::Replace => IfPresent::Replace,
            wit::IfPresent::Rename => IfPresent::Rename,
            wit::IfPresent::Skip => IfPresent::Skip,
            wit::IfPresent::Update => IfPresent::Update,
        },
        filter: host_filter(&options.filter)?,
        verify: match options.verification {
            wit::Verification::Size => Verify::Size,
            wit::Verification::Content => Verify::Content,
        },
        delete_source: options.delete_source,
        resume: options.resume,
        keep_modified: options.keep_modified,
        keep_mode: None,
        parallel: options.parallel as usize,
    })
}

fn guest_result(result: FileResult) -> wit::FileResult {
    wit::FileResult {
        source: result.source.as_str().to_owned(),
        target: result.target.as_str().to_owned(),
        outcome: match result.outcome {
            Ok(Outcome::Transferred { bytes, resumed_at }) => {
                wit::Outcome::Transferred(wit::Transferred { bytes, resumed_at })
            }
            Ok(Outcome::Skipped(reason)) => wit::Outcome::Skipped(reason.to_owned()),
            Err(error) => wit::Outcome::Failed(told(&error)),
        },
        milliseconds: u64::try_from(result.took.as_millis()).unwrap_or(u64::MAX),
    }
}
