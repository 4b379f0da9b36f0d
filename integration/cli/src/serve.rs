//! `mistralrs-kv serve`: an OpenAI-compatible server.
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use kv_core::Registry;
use mistralrs_kv::{CacheConfig, StartError};
use mistralrs_kv_server::Server;
use tokio::net::TcpListener;

use crate::cache_args::ModelArgs;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    model: ModelArgs,
    /// Address to listen on; other machines reach the server only if this is not a loopback address.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 1234)]
    port: u16,
    /// Name that the model is served under [default: the file's name without its ending].
    #[arg(long, value_name = "NAME")]
    served_name: Option<String>,
    /// Never evict the system prompt of a chat, unless its request says what it pins.
    #[arg(long)]
    pin_system: bool,
    /// Seconds that requests get to end after the server was told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

impl Serve {
    pub(crate) fn execute(&self, registry: Registry, silent: bool) -> Result<()> {
        // The stock engine's eager attention mixes up the rows of a batch on a CPU; everything in pages is the plain choice.
        let config = self
            .model
            .engine_under(Some("keep-all"), registry, silent)?;
        let name = match &self.served_name {
            Some(name) => name.clone(),
            None => self.model.name()?,
        };
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        runtime.block_on(async {
            // Before the model is loaded: a port that is taken shall be known at once.
            let listener = self.listen().await?;
            let engine = config.start().await?;
            println!(
                "serving `{name}` on http://{}/v1 ({}); metrics on /metrics; Ctrl-C stops",
                listener.local_addr()?,
                config.cache.as_ref().map(words).unwrap_or_default(),
            );
            let server = Server::new(engine, name).pin_system(self.pin_system);
            let stopped = server
                .run(listener, told_to_stop(), Duration::from_secs(self.grace))
                .await?;
            println!(
                "stopped: {} requests cut off, {} of {} pages held",
                stopped.cut_off, stopped.pages_held, stopped.pages
            );
            ensure!(
                stopped.pages_held == 0,
                "the engine did not give all pages back"
            );
            Ok(())
        })
    }

    async fn listen(&self) -> Result<TcpListener, StartError> {
        let address = SocketAddr::new(self.host, self.port);
        if !self.host.is_loopback() {
            eprintln!(
                "note: {address} can be reached from other machines, and this server asks nobody who they are"
            );
        }
        TcpListener::bind(address)
            .await
            .map_err(|error| StartError::OutOfRange {
                field: "port",
                value: format!("{address} ({error})"),
                allowed: "an address of this machine with a port that is free".into(),
            })
    }
}

fn words(cache: &CacheConfig) -> String {
    format!(
        "policy {}, budget {}",
        cache.policy_name(),
        cache.budget_given()
    )
}

/// Ready at Ctrl-C or when the system asks the process to end; a second time ends it at once.
async fn told_to_stop() {
    wait_for_signal().await;
    eprintln!(
        "stopping: no new requests; those that are being answered get their time (again to stop at once)"
    );
    tokio::spawn(async {
        wait_for_signal().await;
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut end), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = end.recv() => (),
        _ = interrupt.recv() => (),
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
