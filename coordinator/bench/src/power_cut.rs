//! Power cuts: the coordinator keeps its data on an ext4 image, which is cut off at random moments as a power cut
//! would, mounted again and checked: everything that was acknowledged must be there.
//!
//! The cut is the ioctl `FS_IOC_SHUTDOWN` without a flush of the journal (`EXT4_GOING_FLAGS_NOLOGFLUSH`, as in Linux's
//! `fs/ext4/ext4.h`): what was not synced is gone. Needs root, a loop device and `mkfs.ext4`.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use lull_shared::{
    client::{Client, Trust},
    credentials::Role,
    ids::{Digest, JobId},
    jobs::{Assignment, CreateJob, JobState, OutputPart},
    output::Stream,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use crate::{
    pool::Pool,
    process::{PATIENCE, pause},
    simulated::SimulatedWorker,
};

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often the power is cut.
    pub cuts: u32,
    /// What chance begins with.
    pub seed: u64,
    /// Another coordinator program than the one beside this program.
    pub coordinator: Option<PathBuf>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What must not be, for a person.
    pub faults: Vec<String>,
    /// How many submissions were acknowledged.
    pub submissions: usize,
    /// How many results were acknowledged.
    pub results: usize,
    /// How many uploaded files were acknowledged.
    pub files: usize,
    /// How long it took.
    pub took: Duration,
}

const SUBMITTERS: usize = 6;
const WORKERS: usize = 2;
const IMAGE_BYTES: u64 = 512 << 20;

/// What the coordinator said it has, while there was power: a reply that arrives later was never sent.
#[derive(Debug, Default)]
struct Books {
    power_is_off: bool,
    submitted: Vec<JobId>,
    /// Results by job: the attempt and the state that was acknowledged.
    finished: BTreeMap<JobId, (u32, JobState)>,
    uploaded: Vec<Digest>,
}

impl Books {
    fn note_submitted(&mut self, job: JobId) {
        if !self.power_is_off {
            self.submitted.push(job);
        }
    }

    fn note_finished(&mut self, job: JobId, attempt: u32, state: JobState) {
        if !self.power_is_off {
            self.finished.insert(job, (attempt, state));
        }
    }

    fn note_uploaded(&mut self, digest: Digest) {
        if !self.power_is_off {
            self.uploaded.push(digest);
        }
    }
}

type SharedBooks = Arc<Mutex<Books>>;

fn open(books: &SharedBooks) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts the power again and again and checks what is left each time.
///
/// # Errors
/// When the image cannot be made, mounted or cut, or the coordinator does not start again: that it has lost something
/// is no error but a fault in the outcome.
pub async fn run(plan: &Plan) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let mut chance = fastrand::Rng::with_seed(plan.seed);
    let disk = block_in_place(Disk::make)?;
    let data = disk.data();
    let books = SharedBooks::default();
    let mut outcome = Outcome::default();
    let mut pool =
        block_in_place(|| Pool::start_other(plan.coordinator.as_deref(), Some(&data), &[]))?;
    let token: secrecy::SecretString = pool.token(Role::Submitter)?.into();
    let pin = lull_shared::credentials::SpkiPin([0; 32]);
    let client = Client::new(&[&pool.http_url], Trust::SpkiPin(pin))?.with_token(token);
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        let code = block_in_place(|| pool.join_code())?;
        workers.push(Arc::new(SimulatedWorker::join(&pool.http_url, &code).await?));
    }
    for cut in 0..plan.cuts {
        let work = start_work(&client, &workers, &books, chance.fork());
        sleep(Duration::from_millis(chance.u64(150..900))).await;
        // From here on nobody hears anything any more. The file system takes a moment to go down, in which a sync may
        // still succeed that does not last; a real cut sends no reply about it.
        open(&books).power_is_off = true;
        block_in_place(|| disk.cut())?;
        drop(work);
        block_in_place(|| {
            pool.coordinator().kill()?;
            disk.mount_again()
        })?;
        outcome
            .faults
            .extend(block_in_place(|| integrity(&data))?.map(|it| format!("cut {cut}: {it}")));
        block_in_place(|| pool.start_coordinator(&[]))
            .with_context(|| format!("after cut {cut} the coordinator does not start"))?;
        open(&books).power_is_off = false;
        let found = check(&client, &books).await?;
        outcome.faults.extend(found.into_iter().map(|fault| format!("cut {cut}: {fault}")));
        if !outcome.faults.is_empty() {
            // What is lost stays lost: every later look would find it again.
            break;
        }
    }
    pool.coordinator().kill()?;
    let books = open(&books);
    outcome.submissions = books.submitted.len();
    outcome.results = books.finished.len();
    outcome.files = books.uploaded.len();
    outcome.took = begun.elapsed();
    Ok(outcome)
}

/// People who submit and workers who work, until dropped.
fn start_work(
    client: &Client,
    workers: &[Arc<SimulatedWorker>],
    books: &SharedBooks,
    mut chance: fastrand::Rng,
) -> JoinSet<()> {
    let mut work = JoinSet::new();
    for _ in 0..SUBMITTERS {
        work.spawn(submit(client.clone(), Arc::clone(books), chance.fork()));
    }
    for worker in workers {
        work.spawn(work_off(Arc::clone(worker), Arc::clone(books)));
    }
    work
}

/// Submits until the coordinator answers no more. Every fifth job comes with a file of its own.
async fn submit(client: Client, books: SharedBooks, mut chance: fastrand::Rng) {
    let Ok(folder) = tempfile::tempdir() else { return };
    loop {
        let mut job = CreateJob { command: "true".to_owned(), ..CreateJob::default() };
        if chance.u8(..5) == 0 {
            let path = folder.path().join("input.zip");
            let Ok(digest) = make_zip(&path, chance.u64(..)) else { return };
            if client.upload_file(&path, digest, |_, _| {}).await.is_err() {
                return;
            }
            open(&books).note_uploaded(digest);
            job.file_digest = Some(digest);
        }
        match client.create_job(&job).await {
            Ok(made) => open(&books).note_submitted(made.job_id),
            Err(_) => return,
        }
    }
}

fn make_zip(path: &Path, content: u64) -> anyhow::Result<Digest> {
    let mut zip = zip::ZipWriter::new(File::create(path)?);
    zip.start_file("content", zip::write::SimpleFileOptions::default())?;
    std::io::Write::write_all(&mut zip, content.to_string().repeat(500).as_bytes())?;
    zip.finish()?;
    Ok(Digest::of(&std::fs::read(path)?))
}

/// Claims jobs and reports them as succeeded, until the coordinator answers no more.
async fn work_off(worker: Arc<SimulatedWorker>, books: SharedBooks) {
    while let Ok(jobs) = worker.claim(5, 4).await {
        for job in jobs {
            let mut result = SimulatedWorker::success_of(&job);
            result.output = vec![words_of(&job)];
            match worker.client.submit_result(&result).await {
                Ok(reply) => {
                    open(&books).note_finished(job.job_id, job.attempt, reply.status);
                }
                Err(_) => return,
            }
        }
    }
}

fn words_of(job: &Assignment) -> OutputPart {
    let data = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("{} {}\n", job.job_id, job.attempt),
    );
    OutputPart { stream: Stream::Stdout, offset: 0, data }
}

/// What SQLite itself finds wrong with the database.
fn integrity(data: &Path) -> anyhow::Result<Option<String>> {
    let path = data.join("lull.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let Ok(database) = Connection::open_with_flags(&path, flags) else {
        return Ok(Some("the database cannot be opened".to_owned()));
    };
    let said = database.query_row("pragma integrity_check(1)", [], |row| row.get::<_, String>(0));
    Ok(match said {
        Ok(said) if said == "ok" => None,
        Ok(said) => Some(format!("integrity check: {said}")),
        Err(error) => Some(format!("integrity check: {error}")),
    })
}

/// Whether everything that was acknowledged is there.
async fn check(client: &Client, books: &SharedBooks) -> anyhow::Result<Vec<String>> {
    let (submitted, finished, uploaded) = {
        let books = open(books);
        (books.submitted.clone(), books.finished.clone(), books.uploaded.clone())
    };
    let mut faults = Vec::new();
    for id in submitted {
        let Ok(job) = client.job_status(id).await else {
            faults.push(format!("accepted job {id} is gone"));
            continue;
        };
        let Some((attempt, state)) = finished.get(&id) else { continue };
        if (job.status, job.attempt) != (*state, *attempt) {
            let now = format!("{} after attempt {}", job.status.name(), job.attempt);
            faults.push(format!("the result of job {id} is gone: it is {now}"));
        } else if job.stdout != Some(format!("{id} {attempt}\n")) {
            faults.push(format!("the output of job {id} is gone: {:?}", job.stdout));
        }
    }
    let folder = tempfile::tempdir()?;
    for digest in uploaded {
        let path = folder.path().join(digest.to_string());
        match client.download_to(digest, &path, |_, _| {}).await {
            Ok(_) if Digest::of(&std::fs::read(&path)?) == digest => {}
            Ok(_) => faults.push(format!("file {digest} is damaged")),
            Err(error) => faults.push(format!("file {digest} is gone: {error}")),
        }
    }
    Ok(faults)
}

/// An ext4 file system in a file, mounted.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn make() -> anyhow::Result<Self> {
        anyhow::ensure!(
            Path::new("/dev/loop-control").exists() && is_root()?,
            "cutting the power of a file system needs root and loop devices"
        );
        let folder = tempfile::Builder::new().prefix("lull-power").tempdir()?;
        let disk = Self { folder };
        File::create(disk.image())?.set_len(IMAGE_BYTES)?;
        command("mkfs.ext4", &["-q", "-F", &disk.image().display().to_string()])?;
        std::fs::create_dir(disk.mount_point())?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn data(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    fn mount(&self) -> anyhow::Result<()> {
        let (image, point) = (self.image(), self.mount_point());
        command(
            "mount",
            &["-o", "loop", &image.display().to_string(), &point.display().to_string()],
        )
    }

    /// Nothing that was not synced by now reaches the image any more.
    #[expect(unsafe_code, reason = "the ioctl has no safe form")]
    fn cut(&self) -> anyhow::Result<()> {
        /// `_IOR('X', 125, __u32)`.
        const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        /// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
        const WITHOUT_FLUSH: u32 = 2;
        let flags = WITHOUT_FLUSH;
        let point = File::open(self.mount_point())?;
        // SAFETY: the descriptor is open for the call, and the argument points to a whole u32.
        let done = unsafe { libc::ioctl(point.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flags) };
        if done != 0 {
            bail!("could not cut off the file system: {}", std::io::Error::last_os_error());
        }
        Ok(())
    }

    fn mount_again(&self) -> anyhow::Result<()> {
        command("umount", &[&self.mount_point().display().to_string()])?;
        // A sandbox that starts in this moment has the old mount in its own view for a while; mounted before that is
        // over, the file system would come back as it is in memory, cut off.
        let until = Instant::now() + PATIENCE;
        while !is_released(&self.image())? {
            anyhow::ensure!(
                Instant::now() < until,
                "the image stays in use after it was unmounted"
            );
            pause();
        }
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it, and the folder can be removed.
        drop(command("umount", &["-l", &self.mount_point().display().to_string()]));
    }
}

/// Whether no loop device has the image any more.
fn is_released(image: &Path) -> anyhow::Result<bool> {
    let said = Command::new("losetup").arg("-j").arg(image).output()?;
    Ok(said.status.success() && said.stdout.trim_ascii().is_empty())
}

fn is_root() -> anyhow::Result<bool> {
    let said = Command::new("id").arg("-u").output()?;
    Ok(said.stdout.trim_ascii() == b"0")
}

fn command(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("could not run {program}"))?;
    anyhow::ensure!(
        done.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}
