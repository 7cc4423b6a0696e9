//! `users/*` and `check/user`: who is connected, how full it is, and whether the connection works.

use serde_json::{Value, json};

use super::Call;
use crate::account::Account;
use crate::reply::Failure;

/// Echoes its `query` (check.stone).
pub(super) fn check_user(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let query = fields.optional_string("query")?.unwrap_or_default();
    fields.finish()?;
    Ok(json!({ "result": query }))
}

pub(super) fn get_current_account(call: &Call<'_>) -> Result<Value, Failure> {
    call.expect_no_argument()?;
    Ok(Account::profile())
}

pub(super) fn get_space_usage(call: &Call<'_>) -> Result<Value, Failure> {
    call.expect_no_argument()?;
    let quota = call.account.quota();
    Ok(json!({
        "used": quota.used(),
        "allocation": { ".tag": "individual", "allocated": quota.limit() },
    }))
}
