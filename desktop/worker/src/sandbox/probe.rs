//! The test at start: tries from inside what must not work, next to the same from outside, which must.

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, time::timeout};

use lull_shared::jobs::OnError;

use super::{Launch, Program, Sandbox, SandboxError};

/// What a job in this sandbox reached although it must not; nothing, when all is well.
pub(super) async fn escapes(sandbox: &dyn Sandbox) -> Result<Vec<String>, SandboxError> {
    const TIME_MAX: Duration = Duration::from_secs(20);

    let error = |source| SandboxError::Start {
        detail: "the test of the sandbox could not be made".to_owned(),
        source: Some(source),
    };
    let outside = Outside::new().map_err(error)?;
    let launch = Launch {
        folder: outside.folder.path().join("job"),
        program: Program::Lines {
            lines: vec![outside.attempts().map_err(error)?],
            shell: None,
            on_error: OnError::Stop,
        },
        env: std::collections::BTreeMap::new(),
    };
    let mut started = sandbox.start(&launch).await?;
    let mut output = String::new();
    let mut errors = Vec::new();
    let (mut stdout, mut stderr) = (started.stdout.take(10_000), started.stderr.take(10_000));
    let run = async {
        tokio::try_join!(stdout.read_to_string(&mut output), stderr.read_to_end(&mut errors))
    };
    timeout(TIME_MAX, run)
        .await
        .map_err(|_| error(io::ErrorKind::TimedOut.into()))?
        .map_err(error)?;
    started.process.wait().await?;

    // A test that did not come to its end proves nothing.
    let Some(reached) = output.trim_end().strip_suffix("tried") else {
        let said = String::from_utf8_lossy(&errors).trim().to_owned();
        return Err(error(io::Error::other(said)));
    };
    Ok(reached.lines().map(str::to_owned).collect())
}

/// Things of the owner, as it were: a file, a socket in the file system, a service on the loopback address.
struct Outside {
    folder: tempfile::TempDir,
    _socket: UnixListener,
    service: TcpListener,
}

impl Outside {
    fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("job"))?;
        fs::write(folder.path().join("secret"), "secret")?;
        let socket = UnixListener::bind(folder.path().join("socket"))?;
        let service = TcpListener::bind(("127.0.0.1", 0))?;
        // From outside all of it can be reached; otherwise the test would pass whatever the sandbox does.
        fs::read(folder.path().join("secret"))?;
        UnixStream::connect(folder.path().join("socket"))?;
        TcpStream::connect(service.local_addr()?)?;
        Ok(Self { folder, _socket: socket, service })
    }

    /// A line that names what it reached, and at last says that it tried all.
    fn attempts(&self) -> io::Result<String> {
        let folder = self.folder.path().display();
        let port = self.service.local_addr()?.port();
        let mut line = format!(
            "cat '{folder}/secret' >/dev/null 2>&1 && echo 'a file outside its folder'\n\
             [ -e '{folder}/socket' ] && echo 'a socket outside its folder'\n\
             (: > /usr/lull-probe) 2>/dev/null && echo 'the folders of programs'\n\
             [ -e /proc/1/root/{folder} ] && echo 'the root outside'\n\
             [ -x /bin/bash ] && /bin/bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>/dev/null && \
             echo 'the network outside'\n"
        );
        for (space, what) in [
            ("net", "the network"),
            ("pid", "processes"),
            ("mnt", "mounts"),
            ("ipc", "shared memory"),
        ] {
            let own = fs::read_link(format!("/proc/self/ns/{space}"))?;
            line += &format!(
                "[ \"$(readlink /proc/self/ns/{space})\" = '{}' ] && echo '{what} of the host'\n",
                own.display()
            );
        }
        line += ": > here || exit 1\necho tried";
        Ok(line)
    }
}
