//! `lull login`: checks address, CA and token, then stores them for the next commands.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use console::Term;
use lull_shared::{
    client::Client,
    credentials::{BearerToken, SpkiPin},
};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::{
    config::{self, Login},
    output::{Output, clean},
};

const HELP: &str = "\
An admin makes a token with `lull-coordinator token --role submitter`. It is asked for, or read from a file or from
standard input; it is never an argument, because arguments are visible to every program on the computer.

The CA is tls/ca.pem in the coordinator's data folder. Its fingerprint, the part of a join code between `lull1.` and
the next dot, does as well: the CA is then fetched and checked against it.

Examples:
  lull login --url https://pool.example:7700 --ca ca.pem
  lull login --url pool.example:7700 --fingerprint 3q2-7w… < token.txt
  lull-coordinator token --role submitter | lull login --url https://localhost:7700 --ca ca.pem --token-file -";

/// Sign in to a coordinator and remember it
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Address of the coordinator [default: LULL_URL, or it is asked for]
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The coordinator's CA certificate [default: LULL_CA, or those this computer trusts]
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    ca: Option<PathBuf>,

    /// Fingerprint of the coordinator's CA
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<SpkiPin>,

    /// File with the token; - is standard input [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<ExitCode> {
    let url = match args.url.or_else(config::url_of_environment) {
        Some(url) => url,
        None => {
            ask(output, "Address of the coordinator (for example https://pool.example:7700): ")?
        }
    };
    let url = full_address(&url);
    let ca_pem = match (args.fingerprint, args.ca.or_else(config::ca_of_environment)) {
        (Some(pin), _) => Some(Client::fetch_ca(&[&url], pin).await?),
        (None, Some(path)) => Some(config::read_ca(&path)?),
        (None, None) => None,
    };
    let client = Client::new(&[&url], config::trust(ca_pem.clone()))?;
    // Before the token is asked for, so that a wrong address or CA is told first.
    client.healthz().await?;
    let token = read_token(args.token_file.as_deref(), output)?;
    let who = client.with_token(token.clone()).whoami().await?;
    let path = config::store(&Login { url: url.clone(), token, ca_pem })?;
    if output.json {
        output.value(&who)?;
    } else {
        let (name, role) = (clean(&who.name), who.role.name());
        output.line(&format!("signed in to {url} as {name} ({role})"))?;
        output.note(&format!("stored in {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The address with its scheme.
fn full_address(text: &str) -> String {
    let text = text.trim().trim_end_matches('/');
    let is_url = text.contains("://") && Url::parse(text).is_ok();
    if is_url { text.to_owned() } else { format!("https://{text}") }
}

fn read_token(file: Option<&Path>, output: &Output) -> anyhow::Result<SecretString> {
    let text = match file {
        Some(path) if path != Path::new("-") => fs::read_to_string(path)
            .with_context(|| format!("could not read the token from {}", path.display()))?,
        None if io::stdin().is_terminal() => ask_secret(output, "Token (it is not shown): ")?,
        Some(_) | None => {
            let mut text = String::new();
            io::stdin().lock().take(4096).read_to_string(&mut text)?;
            text
        }
    };
    match text.parse::<BearerToken>()? {
        token @ BearerToken::Api(..) => Ok(token.to_text().expose_secret().into()),
        BearerToken::Worker(..) | BearerToken::Join(..) => {
            bail!("this token belongs to a PC; people sign in with one that begins with lullt_")
        }
    }
}

fn ask(output: &Output, question: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        bail!("nobody can be asked for the address: give it with --url or LULL_URL");
    }
    output.prompt(question);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim();
    if answer.is_empty() {
        bail!("nothing was entered");
    }
    Ok(answer.to_owned())
}

/// Asks for what must not stand on the screen while it is typed.
fn ask_secret(output: &Output, question: &str) -> anyhow::Result<String> {
    let terminal = Term::stderr();
    if !terminal.is_term() {
        bail!("nobody can be asked for the token: give it with --token-file");
    }
    output.prompt(question);
    let answer = terminal.read_secure_line().context("could not read the token")?;
    let answer = answer.trim();
    if answer.is_empty() {
        bail!("nothing was entered");
    }
    Ok(answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_scheme() {
        assert_eq!(full_address("pool.example:7700"), "https://pool.example:7700");
        assert_eq!(full_address(" https://pool.example/ "), "https://pool.example");
        assert_eq!(full_address("http://127.0.0.1:7701"), "http://127.0.0.1:7701");
        assert_eq!(full_address("[::1]:7700"), "https://[::1]:7700");
    }
}
