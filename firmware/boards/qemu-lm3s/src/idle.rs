//! Runs tasks, and sleeps when they have nothing to do.
//!
//! With `wfi`: embassy's own executor for Cortex-M sleeps with `wfe`, which QEMU takes for a hint to do nothing, so that
//! an idle board would keep a processor of its host busy.

use core::sync::atomic::{AtomicBool, Ordering};

use embassy_executor::Spawner;
use embassy_executor::raw::Executor;
use static_cell::StaticCell;

/// Some task has something to do.
static PENDING: AtomicBool = AtomicBool::new(false);

#[expect(unsafe_code, reason = "the executor finds it by its name")]
#[unsafe(export_name = "__pender")]
fn pend(_: *mut ()) {
    PENDING.store(true, Ordering::Release);
}

/// Runs what `start` spawns, for ever.
pub(crate) fn run(start: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let executor = EXECUTOR.init(Executor::new(core::ptr::null_mut()));
    start(executor.spawner());
    loop {
        PENDING.store(false, Ordering::Release);
        #[expect(unsafe_code, reason = "polling must not be nested")]
        // SAFETY: called here only, and this function runs once: the executor's cell is filled once.
        unsafe {
            executor.poll();
        }
        // Between looking and sleeping nobody may wake us unheard: an interrupt that comes now ends `wfi` at once, and
        // is served after it.
        cortex_m::interrupt::free(|_| {
            if !PENDING.load(Ordering::Acquire) {
                cortex_m::asm::wfi();
            }
        });
    }
}
