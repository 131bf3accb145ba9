//! One typed configuration, settled once at start: flag, then environment, then file, then default.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};
use lull_shared::credentials::Role;
use serde::Deserialize;

use crate::{model::Keeping, telemetry::LogFormat};

/// Port of the HTTPS listener unless told.
pub const DEFAULT_PORT: u16 = 7700;
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const DEFAULT_LEASE: Duration = Duration::from_secs(60);
/// A lease is renewed a few times before it ends, and each renewal needs its time.
const LEASE_MIN: Duration = Duration::from_secs(3);
const LEASE_MAX: Duration = Duration::from_secs(60 * 60);
const DEFAULT_UPLOAD_BYTES_MAX: u64 = 10 << 30;
const DEFAULT_WAITING_MAX: u64 = 2_000_000;
const DEFAULT_CONNECTIONS_MAX: usize = 20_000;
const DEFAULT_CONNECTIONS_PER_ADDRESS_MAX: usize = 2_000;

const EXAMPLES: &str = "\
Examples:
  lull-coordinator
      Start with everything at its default: HTTPS on port 7700, data in your user's data folder.
  lull-coordinator --data-dir /srv/lull --name pool.example.com
      Keep the data elsewhere, and put a name of this machine into its certificate and join codes.
  lull-coordinator --http-listen 127.0.0.1:7701
      Also offer the page without a certificate warning, to browsers on this machine only.
  lull-coordinator token --role admin
      Print a token to sign in with. Works while the server runs.
  lull-coordinator join-code --uses 20 --ttl 7d
      Print a code with which 20 PCs may join within a week.

Files in the data folder: lull.db, blobs/, tls/ca.pem (the certificate clients pin). Settings may also stand in a TOML
file (--config) under the long flags' names, or in the environment as LULL_<FLAG>.";

/// The command line of `lull-coordinator`.
#[derive(Debug, Default, Parser)]
#[command(
    name = "lull-coordinator",
    version,
    about = "Hands out jobs to idle PCs: the server of a Lull pool",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = false
)]
pub struct Cli {
    /// Settings.
    #[command(flatten)]
    pub flags: Flags,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Settings on the command line. Each has an environment name too, so clap settles the first two layers.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Address to answer HTTPS on [default: 0.0.0.0:7700]
    #[arg(long, env = "LULL_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Address to answer plain HTTP on as well; only a loopback address is accepted
    #[arg(long, env = "LULL_HTTP_LISTEN", value_name = "ADDR")]
    pub http_listen: Option<SocketAddr>,

    /// Folder for database, files and keys [default: your user's data folder]
    #[arg(long, env = "LULL_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// TOML file with settings
    #[arg(long, env = "LULL_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Let signed-in people run commands on this machine itself (direct mode)
    #[arg(
        long,
        env = "LULL_ALLOW_DIRECT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub allow_direct: Option<bool>,

    /// Further host name or address of this machine, for its certificate and join codes (repeatable)
    #[arg(
        long = "name",
        id = "names",
        env = "LULL_NAME",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub names: Vec<String>,

    /// Write addresses and process id here, as JSON, once requests are answered
    #[arg(long, env = "LULL_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,

    /// Largest file that may be uploaded, in bytes [default: 10 GiB]
    #[arg(long, env = "LULL_UPLOAD_BYTES_MAX", value_name = "BYTES")]
    pub upload_bytes_max: Option<u64>,

    /// How long a silent worker keeps its jobs before they run elsewhere, for example 60s [default: 60s]
    #[arg(long, env = "LULL_LEASE", value_name = "TIME", value_parser = parse_duration)]
    pub lease: Option<Duration>,

    /// How many jobs of one user may wait; further ones are refused [default: 2000000]
    #[arg(long, env = "LULL_WAITING_MAX", value_name = "N")]
    pub waiting_max: Option<u64>,

    /// How long ended jobs and their output are kept, for example 30d [default: 30d]
    #[arg(long, env = "LULL_KEEP_JOBS", value_name = "TIME", value_parser = parse_duration)]
    pub keep_jobs: Option<Duration>,

    /// How many ended jobs are kept at most [default: 1000000]
    #[arg(long, env = "LULL_KEEP_JOBS_MAX", value_name = "N")]
    pub keep_jobs_max: Option<u64>,

    /// How long files are kept that no job refers to, for example 30d [default: 30d]
    #[arg(long, env = "LULL_KEEP_FILES", value_name = "TIME", value_parser = parse_duration)]
    pub keep_files: Option<Duration>,

    /// How log lines look [default: text on a terminal, json otherwise]
    #[arg(long, env = "LULL_LOG", value_name = "FORMAT", value_enum, global = true)]
    pub log: Option<LogFormat>,
}

/// What the program does instead of serving. Each acts on the data folder, also while the server runs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a code with which a PC joins this pool
    JoinCode(JoinCodeArgs),
    /// Print a token with which a person or program signs in
    Token(TokenArgs),
    /// Copy the database into a new file; files by digest (blobs/) and keys (tls/) are copied as they are
    Backup(BackupArgs),
}

/// Where the copy goes.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The new file
    pub file: PathBuf,
}

/// What the join code shall allow.
#[derive(Debug, Args)]
pub struct JoinCodeArgs {
    /// How many PCs may join with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,

    /// How long it stays valid, for example 30m, 24h or 7d
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    pub ttl: Duration,

    /// Where the PCs will find the coordinator, instead of the addresses it knows (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub name: Vec<String>,
}

/// Whom the token is for and what it shall allow.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What it allows: viewer (see), submitter (also run and cancel) or admin (everything)
    #[arg(long)]
    pub role: Role,

    /// A name for it, shown with the jobs it submits [default: the role]
    #[arg(long)]
    pub name: Option<String>,

    /// How long it stays valid, for example 12h or 90d [default: until it is revoked]
    #[arg(long, value_parser = parse_duration)]
    pub ttl: Option<Duration>,

    /// How many turns its jobs have for one of a token of weight 1, when jobs of several wait
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: u32,
}

/// The settings as they may stand in the file. A misspelt key is an error, not a default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    listen: Option<SocketAddr>,
    http_listen: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    allow_direct: Option<bool>,
    #[serde(default)]
    names: Vec<String>,
    ready_file: Option<PathBuf>,
    upload_bytes_max: Option<u64>,
    lease: Option<String>,
    waiting_max: Option<u64>,
    keep_jobs: Option<String>,
    keep_jobs_max: Option<u64>,
    keep_files: Option<String>,
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
}

/// All settings, settled. Holds no secrets: safe to log.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTPS is answered.
    pub listen: SocketAddr,
    /// Where plain HTTP is answered, always a loopback address.
    pub http_listen: Option<SocketAddr>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Whether commands may run on this machine itself.
    pub allow_direct: bool,
    /// Further names of this machine.
    pub names: Vec<String>,
    /// Where to say that requests are answered.
    pub ready_file: Option<PathBuf>,
    /// Largest upload.
    pub upload_bytes_max: u64,
    /// Most connections at once.
    pub connections_max: usize,
    /// Most connections at once from one address.
    pub connections_per_address_max: usize,
    /// How long a lease lasts without a renewal.
    pub lease: Duration,
    /// How many jobs of one user may wait.
    pub waiting_max: u64,
    /// How often leases and silent workers are looked at.
    pub reap_every: Duration,
    /// What is kept of what has ended, and how long.
    pub keeping: Keeping,
}

impl Config {
    /// Reads the file, if one is named, and settles all layers.
    ///
    /// # Errors
    /// When the file cannot be read or a setting makes no sense.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => read_file(path)
                .with_context(|| format!("could not read settings from {}", path.display()))?,
            None => File::default(),
        };
        resolve(flags, file, default_data_dir())
    }

    /// Every setting at its default, with data in the given folder.
    #[must_use]
    pub fn for_data_dir(data_dir: &Path) -> Self {
        Self {
            listen: DEFAULT_LISTEN,
            http_listen: None,
            data_dir: data_dir.to_owned(),
            allow_direct: false,
            names: Vec::new(),
            ready_file: None,
            upload_bytes_max: DEFAULT_UPLOAD_BYTES_MAX,
            connections_max: DEFAULT_CONNECTIONS_MAX,
            connections_per_address_max: DEFAULT_CONNECTIONS_PER_ADDRESS_MAX,
            lease: DEFAULT_LEASE,
            waiting_max: DEFAULT_WAITING_MAX,
            reap_every: Duration::from_secs(1),
            keeping: Keeping { jobs: MONTH, jobs_max: 1_000_000, files: MONTH },
        }
    }
}

/// Takes each setting from the strongest layer that names it. No I/O: the rules are table-tested.
fn resolve(flags: &Flags, file: File, default_data_dir: Option<PathBuf>) -> anyhow::Result<Config> {
    let data_dir = flags.data_dir.clone().or(file.data_dir).or(default_data_dir).context(
        "this account has no home folder to keep data in; name a folder with --data-dir",
    )?;
    let defaults = Config::for_data_dir(&data_dir);
    let http_listen = flags.http_listen.or(file.http_listen);
    if let Some(address) = http_listen {
        ensure!(
            address.ip().is_loopback(),
            "plain HTTP is answered on a loopback address only, such as 127.0.0.1:7701; {address} would send tokens \
             readable over the network (--listen answers HTTPS there)"
        );
    }
    let names = if flags.names.is_empty() { file.names } else { flags.names.clone() };
    for name in &names {
        if !is_host(name) {
            bail!("{name:?} is not a host name or address (give it without scheme and port)");
        }
    }
    let lease = time(flags.lease, file.lease.as_deref(), defaults.lease, "lease")?;
    ensure!((LEASE_MIN..=LEASE_MAX).contains(&lease), "a lease lasts from 3s to 1h");
    let usual = defaults.keeping;
    let keeping = Keeping {
        jobs: time(flags.keep_jobs, file.keep_jobs.as_deref(), usual.jobs, "keep-jobs")?,
        jobs_max: flags.keep_jobs_max.or(file.keep_jobs_max).unwrap_or(usual.jobs_max),
        files: time(flags.keep_files, file.keep_files.as_deref(), usual.files, "keep-files")?,
    };
    ensure!(keeping.files >= HOUR, "keep-files: at least 1h, or uploads vanish before their job");
    Ok(Config {
        lease,
        waiting_max: flags.waiting_max.or(file.waiting_max).unwrap_or(defaults.waiting_max),
        keeping,
        listen: flags.listen.or(file.listen).unwrap_or(defaults.listen),
        http_listen,
        allow_direct: flags.allow_direct.or(file.allow_direct).unwrap_or(defaults.allow_direct),
        names,
        ready_file: flags.ready_file.clone().or(file.ready_file),
        upload_bytes_max: flags
            .upload_bytes_max
            .or(file.upload_bytes_max)
            .unwrap_or(defaults.upload_bytes_max),
        connections_max: file.connections_max.unwrap_or(defaults.connections_max),
        connections_per_address_max: file
            .connections_per_address_max
            .unwrap_or(defaults.connections_per_address_max),
        ..defaults
    })
}

/// A time as a flag or the file gives it.
fn time(
    flag: Option<Duration>,
    in_file: Option<&str>,
    default: Duration,
    name: &'static str,
) -> anyhow::Result<Duration> {
    match (flag, in_file) {
        (Some(time), _) => Ok(time),
        (None, Some(text)) => parse_duration(text).map_err(anyhow::Error::msg).context(name),
        (None, None) => Ok(default),
    }
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    Ok(toml::from_str(&fs::read_to_string(path)?)?)
}

fn default_data_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "Lull")
        .map(|dirs| dirs.data_local_dir().join("coordinator"))
}

/// Whether the text can stand as a name in a certificate: an address, or dot-separated labels.
fn is_host(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
        || (name.len() <= 253
            && name.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            }))
}

/// Reads `90s`, `30m`, `24h` or `7d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || "write a number and a unit, such as 30m, 24h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(bad)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| bad())?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(bad()),
    };
    let total = number.checked_mul(secs).filter(|total| (1..=u64::from(u32::MAX)).contains(total));
    total.map(Duration::from_secs).ok_or_else(|| "between 1s and 100 years, please".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        check(&[], "", |config| config.listen.to_string(), "0.0.0.0:7700");
        check(&[], "listen = \"1.2.3.4:5\"", |config| config.listen.to_string(), "1.2.3.4:5");
        check(
            &["--listen", "6.7.8.9:1"],
            "listen = \"1.2.3.4:5\"",
            |config| config.listen.to_string(),
            "6.7.8.9:1",
        );
        check(&[], "", |config| format!("{:?}", config.lease), "60s");
        check(&[], "lease = \"30s\"", |config| format!("{:?}", config.lease), "30s");
        check(&["--lease=5s"], "lease = \"30s\"", |config| format!("{:?}", config.lease), "5s");
        check(&[], "", |config| config.allow_direct.to_string(), "false");
        check(&[], "allow-direct = true", |config| config.allow_direct.to_string(), "true");
        check(&["--allow-direct"], "", |config| config.allow_direct.to_string(), "true");
        check(
            &["--allow-direct=false"],
            "allow-direct = true",
            |config| config.allow_direct.to_string(),
            "false",
        );
        check(
            &["--name", "a.example", "--name", "10.0.0.1"],
            "names = [\"b.example\"]",
            |config| config.names.join(" "),
            "a.example 10.0.0.1",
        );
        check(&[], "", |config| config.data_dir.display().to_string(), "/default");
        check(&["--data-dir", "/x"], "", |config| config.data_dir.display().to_string(), "/x");
    }

    #[track_caller]
    fn check(args: &[&str], file: &str, read: fn(&Config) -> String, expected: &str) {
        assert_eq!(read(&settle(args, file).unwrap()), expected, "{args:?} {file:?}");
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_refused_with_a_reason() {
        refuse(&["--http-listen", "0.0.0.0:7701"], "", "loopback");
        refuse(&[], "http-listen = \"192.168.1.2:7701\"", "loopback");
        refuse(&["--lease", "1s"], "", "from 3s");
        refuse(&[], "lease = \"soon\"", "lease");
        refuse(&[], "lissten = \"1.2.3.4:5\"", "lissten");
        refuse(&["--name", "https://pool:7700"], "", "without scheme");
    }

    #[track_caller]
    fn refuse(args: &[&str], file: &str, reason: &str) {
        let error = format!("{:#}", settle(args, file).unwrap_err());
        assert!(error.contains(reason), "{error}");
    }

    fn settle(args: &[&str], file: &str) -> anyhow::Result<Config> {
        let args = ["lull-coordinator"].into_iter().chain(args.iter().copied());
        let cli = Cli::try_parse_from(args)?;
        resolve(&cli.flags, toml::from_str(file)?, Some("/default".into()))
    }

    #[test]
    fn the_data_folder_may_stand_before_or_after_the_subcommand() {
        for args in [
            ["lull-coordinator", "--data-dir", "/x", "join-code"],
            ["lull-coordinator", "join-code", "--data-dir", "/x"],
        ] {
            let cli = Cli::try_parse_from(args).unwrap();
            assert_eq!(cli.flags.data_dir.as_deref(), Some(Path::new("/x")));
        }
    }

    #[test]
    fn durations_are_written_with_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "24", "h", "-1h", "0h", "1w", "9999999999999d", "1é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
