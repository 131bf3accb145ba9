//! What a coordinator says once it answers: its addresses for the subcommands, the ready file, and a welcome.

use std::{
    fs,
    io::{self, IsTerminal as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use lull_shared::credentials::SpkiPin;
use serde::Serialize;

use crate::{Listeners, config::Config, tls};

/// Where a coordinator answers.
#[derive(Debug)]
pub(crate) struct Addresses {
    https: SocketAddr,
    http: Option<SocketAddr>,
    /// `host:port` for other machines, best first.
    outward: Vec<String>,
}

/// The content of the ready file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    url: String,
    http_url: Option<String>,
    pid: u32,
}

impl Addresses {
    pub(crate) fn of(listeners: &Listeners, config: &Config) -> anyhow::Result<Self> {
        let https = listeners.https.local_addr()?;
        let http = listeners.http.as_ref().map(|listener| listener.local_addr()).transpose()?;
        Ok(Self { https, http, outward: outward(&config.names, https) })
    }

    /// Keeps the addresses where `join-code` finds them.
    pub(crate) fn record(&self, data_dir: &Path) -> anyhow::Result<()> {
        tls::write(&data_dir.join("address"), &self.outward.join("\n"), 0o644)
    }

    fn url(&self) -> String {
        format!("https://{}", here(self.https))
    }

    fn http_url(&self) -> Option<String> {
        self.http.map(|http| format!("http://{}", here(http)))
    }
}

/// The addresses a running or earlier coordinator recorded; none before the first start.
pub(crate) fn recorded(data_dir: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(data_dir.join("address")).ok()?;
    let addresses: Vec<String> = text.lines().map(str::to_owned).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// Where other machines reach a listener: the given names first, then what this machine knows of itself.
pub(crate) fn outward(names: &[String], listen: SocketAddr) -> Vec<String> {
    let named = names.iter().map(|name| match name.parse() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        Ok(IpAddr::V4(_)) | Err(_) => name.clone(),
    });
    let own = if listen.ip().is_unspecified() {
        tls::outward_hosts()
    } else {
        vec![host_text(listen.ip())]
    };
    let mut hosts: Vec<String> = Vec::new();
    for host in named.chain(own) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() {
        hosts.push(Ipv4Addr::LOCALHOST.to_string());
    }
    hosts.into_iter().map(|host| format!("{host}:{}", listen.port())).collect()
}

fn host_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// How this machine itself reaches a listener.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// Says that requests are answered: in the log, in the ready file, and to a person at a terminal.
pub(crate) fn announce(addresses: &Addresses, config: &Config, pin: SpkiPin) -> anyhow::Result<()> {
    let (url, http_url) = (addresses.url(), addresses.http_url());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        https = %addresses.https,
        http = http_url.as_deref().unwrap_or("off"),
        data_dir = %config.data_dir.display(),
        direct_mode = config.allow_direct,
        "coordinator ready"
    );
    if let Some(path) = &config.ready_file {
        let ready = Ready { url: url.clone(), http_url: http_url.clone(), pid: std::process::id() };
        let json = serde_json::to_string(&ready).context("could not describe the coordinator")?;
        tls::write(path, &json, 0o644)?;
    }
    if io::stdout().is_terminal() {
        welcome(addresses, &url, http_url.as_deref(), config, pin);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a welcome to the person who started it at a terminal")]
fn welcome(
    addresses: &Addresses,
    url: &str,
    http_url: Option<&str>,
    config: &Config,
    pin: SpkiPin,
) {
    let data_dir = config.data_dir.display();
    println!("\n  Lull coordinator {}\n", env!("CARGO_PKG_VERSION"));
    println!("  Open           {}", http_url.unwrap_or(url));
    println!("  In the network {}", addresses.outward.join("  "));
    println!("  Data           {data_dir}");
    println!("  CA fingerprint {pin}\n");
    println!("  Next, in another terminal:");
    println!("    lull-coordinator token --role admin --data-dir {data_dir}    to sign in");
    println!("    lull-coordinator join-code --data-dir {data_dir}             to add a PC\n");
    println!("  Ctrl-C ends it.\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_names_come_first_and_a_chosen_address_is_the_only_other() {
        let names = ["pool.example".to_owned(), "::1".to_owned(), "10.0.0.7".to_owned()];
        let found = outward(&names, "10.0.0.7:7700".parse().unwrap());
        assert_eq!(found, ["pool.example:7700", "[::1]:7700", "10.0.0.7:7700"]);
    }

    #[test]
    fn this_machine_reaches_a_listener_on_all_addresses_by_loopback() {
        assert_eq!(here("0.0.0.0:7700".parse().unwrap()).to_string(), "127.0.0.1:7700");
        assert_eq!(here("[::]:7700".parse().unwrap()).to_string(), "[::1]:7700");
        assert_eq!(here("10.0.0.7:1".parse().unwrap()).to_string(), "10.0.0.7:1");
    }
}
