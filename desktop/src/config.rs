//! What the app is told at its start: flags over environment over defaults, settled once.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use directories::{ProjectDirs, UserDirs};

/// Lends this PC to the pool while you are away, and opens the window from which jobs are handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(name = "lull-desktop", version)]
pub struct Args {
    /// Start in the tray only, without the window.
    #[arg(long)]
    pub hidden: bool,
    /// Keep everything of this app in this folder instead of the usual ones.
    #[arg(long, env = "LULL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// How the app runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether the window stays closed at the start.
    pub hidden: bool,
    /// The worker's data folder.
    pub worker_dir: PathBuf,
    /// Where the tray finds its icon files: a folder of the owner's, not a shared one.
    pub icon_dir: PathBuf,
    /// Where folders are packed before they are handed over; emptied at the start.
    pub packing_dir: PathBuf,
    /// The stored sign-in, which the `lull` command shares.
    pub login_file: PathBuf,
    /// Where result files go.
    pub downloads_dir: PathBuf,
}

/// The folders this account uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// For data of Lull.
    pub data: PathBuf,
    /// For settings of Lull.
    pub config: PathBuf,
    /// Where a browser would put what it downloads.
    pub downloads: PathBuf,
}

impl Folders {
    /// Asks the system.
    ///
    /// # Errors
    ///
    /// When the account has no home.
    pub fn of_this_account() -> anyhow::Result<Self> {
        let lull = ProjectDirs::from("", "", "lull").context("this account has no home folder")?;
        let user = UserDirs::new().context("this account has no home folder")?;
        let downloads = user.download_dir().unwrap_or_else(|| user.home_dir()).to_owned();
        Ok(Self {
            data: lull.data_local_dir().to_owned(),
            config: lull.config_dir().to_owned(),
            downloads,
        })
    }
}

impl Config {
    /// Settles everything once.
    #[must_use]
    pub fn resolve(args: Args, folders: Folders) -> Self {
        let Folders { data, config, downloads } = folders;
        let (worker_dir, data, config) = match args.data_dir {
            Some(all) => (all.clone(), all.clone(), all),
            None => (data.join("worker"), data.join("desktop"), config),
        };
        Self {
            hidden: args.hidden,
            worker_dir,
            icon_dir: data.join("tray"),
            packing_dir: data.join("packing"),
            login_file: config.join("login.json"),
            downloads_dir: downloads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_s_folders_are_used_unless_one_is_given() {
        let folders = || Folders {
            data: "/data/lull".into(),
            config: "/config/lull".into(),
            downloads: "/home/Downloads".into(),
        };
        let usual = Config::resolve(Args::default(), folders());
        assert_eq!(usual.worker_dir, PathBuf::from("/data/lull/worker"));
        assert_eq!(usual.login_file, PathBuf::from("/config/lull/login.json"));

        let args = Args { hidden: true, data_dir: Some("/elsewhere".into()) };
        let own = Config::resolve(args, folders());
        assert!(own.hidden);
        for path in [&own.worker_dir, &own.icon_dir, &own.packing_dir, &own.login_file] {
            assert!(path.starts_with("/elsewhere"), "{}", path.display());
        }
        assert_eq!(own.downloads_dir, PathBuf::from("/home/Downloads"));
    }

    #[test]
    fn the_flags_are_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
