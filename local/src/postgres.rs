//! A private Postgres: started in a temporary folder, on loopback, gone with its folder when its
//! handle is dropped, when the program is interrupted, and when the program dies.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where packages put the server's programs, when they are not on PATH.
const USUAL_PLACES: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
];

/// Starts the server, waits until standard input ends (with this program, however it ends), stops
/// the server and removes its folder.
const KEEPER: &str = r#"
trap '' INT TERM HUP
"$1/postgres" -D "$2/data" >"$2/log" 2>&1 </dev/null &
server=$!
read -r _
kill -INT "$server" 2>/dev/null
wait "$server"
rm -rf "$2"
"#;

/// Why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's programs are not on this machine.
    #[error("no Postgres server was found, on PATH or in {}\nInstall one (Debian: apt install postgresql; macOS: brew install postgresql@17)", USUAL_PLACES.join(", "))]
    NotFound,
    /// A step failed.
    #[error("cannot {doing} a private Postgres: {why}")]
    Failed {
        /// The step.
        doing: &'static str,
        /// The program's words.
        why: String,
    },
}

/// A running private Postgres.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    folder: PathBuf,
    keeper: Child,
    /// While this is open the keeper keeps the server.
    alive: Option<ChildStdin>,
}

impl Postgres {
    /// Makes and starts one, with `settings` in its `postgresql.conf`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no server on this machine.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self, Error> {
        loop {
            match Self::start_once(settings) {
                // Someone else took the port between our asking for it and the server's.
                Err(Error::Failed { why, .. }) if why.contains("Address already in use") => {}
                started => return started,
            }
        }
    }

    fn start_once(settings: &[(&str, &str)]) -> Result<Self, Error> {
        let failed = |doing| move |error: std::io::Error| Error::Failed { doing, why: error.to_string() };
        let bin = find().ok_or(Error::NotFound)?;
        let folder = TempDir::with_prefix("blackwater-postgres-").map_err(failed("make a folder for"))?;
        let user = unprivileged(folder.path()).map_err(failed("hand the folder over to"))?;
        let data = folder.path().join("data");
        let initdb = as_user(Command::new(bin.join("initdb")), user)
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", "--pgdata"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .map_err(failed("make"))?;
        if !initdb.status.success() {
            return Err(Error::Failed { doing: "make", why: String::from_utf8_lossy(&initdb.stderr).into_owned() });
        }
        let port = free_port().map_err(failed("find a port for"))?;
        let port_text = port.to_string();
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port_text.as_str()),
            ("unix_socket_directories", ""),
            ("fsync", "off"),
            ("max_connections", "200"),
        ];
        let lines: String = own.iter().chain(settings).map(|(name, value)| format!("{name} = '{value}'\n")).collect();
        std::fs::write(data.join("postgresql.auto.conf"), lines).map_err(failed("configure"))?;

        let mut keeper = as_user(Command::new("sh"), user);
        // In a group of its own, the terminal's Ctrl-C does not reach the server before us.
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let mut keeper = keeper
            .args(["-c", KEEPER, "keeper"])
            .arg(&bin)
            .arg(folder.path())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("start"))?;
        let alive = keeper.stdin.take();
        // From here the keeper removes the folder.
        let mut server = Self { port, folder: folder.keep(), keeper, alive };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The address of one of its databases, without TLS.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder; the data are in `data`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let pid_file = self.folder.join("data/postmaster.pid");
        loop {
            // https://www.postgresql.org/docs/current/storage-file-layout.html: the last line is the state.
            let state = std::fs::read_to_string(&pid_file).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|state| state.trim() == "ready") {
                return Ok(());
            }
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log().contains("FATAL") || started.elapsed() > Duration::from_secs(60) {
                return Err(Error::Failed { doing: "start", why: log() });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.keeper.wait();
    }
}

/// The folder of the server's programs: on PATH, or the newest in the usual places.
fn find() -> Option<PathBuf> {
    let has_server = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(folder) = std::env::split_paths(&path).find(has_server) {
        return Some(folder);
    }
    USUAL_PLACES.iter().find_map(|place| {
        let (parent, rest) = place.split_once('*').unwrap_or((place, ""));
        if rest.is_empty() {
            return Some(PathBuf::from(place)).filter(has_server);
        }
        let (folder, prefix) = parent.rsplit_once('/')?;
        let versions = std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version: f64 = name.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(rest.trim_start_matches('/')))).filter(|(_, folder)| has_server(folder))
        });
        versions.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, folder)| folder)
    })
}

/// Postgres refuses to run as root: the user to run it as, to whom the folder is given, if we are.
fn unprivileged(folder: &Path) -> std::io::Result<Option<(u32, u32)>> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if std::fs::metadata(folder)?.uid() != 0 {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let user = id("postgres").or_else(|| id("nobody")).unwrap_or((65534, 65534));
    chown(folder, Some(user.0), Some(user.1))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    Ok(Some(user))
}

fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    use std::os::unix::process::CommandExt;
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
