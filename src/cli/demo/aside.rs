//! What runs beside the gateway in the same process: a thread with a run time of its own, which ends when it is told to.

use std::future::Future;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::watch;

use super::DemoError;

/// The thread; dropping it tells it to stop and waits until it has.
#[derive(Debug)]
pub(super) struct Aside {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Aside {
    /// Starts what `work` gives. It has to end soon after the receiver it is given becomes true.
    pub(super) fn start<F: Future<Output = ()>>(
        name: &'static str,
        work: impl FnOnce(watch::Receiver<bool>) -> F + Send + 'static,
    ) -> Result<Self, DemoError> {
        let fault = |error| DemoError::Thread(name, error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(fault)?;
        let (stop, stopping) = watch::channel(false);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(work(stopping)))
            .map_err(fault)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("a thread of the demo failed");
        }
    }
}
