//! Who has the machine: tests share it, one that measures has it alone.
//!
//! The turn belongs to the test, not to the host, so that a test with several hosts takes it once. libtest runs each
//! test on a thread of its own, which is how a test is known here.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::const_new(());

thread_local! {
    static HELD: RefCell<Weak<Turn>> = const { RefCell::new(Weak::new()) };
}

/// The right to use the machine, until the last clone is dropped.
pub(crate) enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Turn {
    /// Waits until this test may run: beside others, or `alone`.
    ///
    /// # Panics
    /// When a test that began beside others wants the machine alone.
    pub(crate) async fn take(alone: bool) -> Rc<Self> {
        if let Some(held) = HELD.with_borrow(Weak::upgrade) {
            assert!(
                !alone || matches!(*held, Self::Alone { .. }),
                "a test that measures says so with its first host: Host::builder().alone()"
            );
            return held;
        }
        let turn = Rc::new(if alone {
            Self::Alone { _guard: MACHINE.write().await }
        } else {
            Self::Shared { _guard: MACHINE.read().await }
        });
        HELD.with_borrow_mut(|held| *held = Rc::downgrade(&turn));
        turn
    }
}
