//! Serving until it is time to stop.
use std::{future::IntoFuture, io, pin::pin, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::oneshot, time::timeout};

use crate::{
    Server,
    routes::{Shared, routes},
};

/// How long to wait for the engine to give the last pages back.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Requests that were still being answered when patience ran out; their clients were cut off.
    pub cut_off: usize,
    /// Pages that sequences still hold; more than 0 is an error of the engine or of this crate.
    pub pages_held: usize,
    /// Pages of the pool.
    pub pages: usize,
}

impl Server {
    /// Serves until `stop` is ready, then takes no more requests and finishes those that it has, for at most `grace`.
    ///
    /// # Errors
    ///
    /// What the system says of the listener.
    pub async fn run(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
        grace: Duration,
    ) -> io::Result<Stopped> {
        let shared = self.share();
        let (stopping, has_stopped) = oneshot::channel::<()>();
        let stop = async move {
            stop.await;
            drop(stopping);
        };
        let serving = axum::serve(listener, routes(shared.clone())).with_graceful_shutdown(stop);
        let mut serving = pin!(serving.into_future());
        let patience = async {
            // Ready when the sender is dropped.
            let _ = has_stopped.await;
            tokio::time::sleep(grace).await;
        };
        let cut_off = tokio::select! {
            served = &mut serving => { served?; 0 }
            () = patience => {
                let cut_off = shared.metrics.in_flight();
                shared.cut_off();
                // Every client is told; one that does not listen is not waited for.
                let _ = timeout(CLEAN_UP, serving).await;
                cut_off
            }
        };
        Ok(stopped(shared, cut_off).await)
    }
}

async fn stopped(shared: Arc<Shared>, cut_off: usize) -> Stopped {
    let Some(runtime) = shared.engine.runtime().cloned() else {
        return Stopped {
            cut_off,
            pages_held: 0,
            pages: 0,
        };
    };
    // The engine gives a sequence's pages back after its last token, or once it sees that the client has gone.
    let waiting = runtime.clone();
    let waited = tokio::task::spawn_blocking(move || waiting.wait_ended(CLEAN_UP));
    let _ = timeout(2 * CLEAN_UP, waited).await;
    let pool = runtime.stats().map(|stats| stats.pool);
    Stopped {
        cut_off,
        pages_held: pool.map_or(0, |pool| pool.held),
        pages: pool.map_or(0, |pool| pool.total),
    }
}
