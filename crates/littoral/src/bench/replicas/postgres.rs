//! A PostgreSQL server of this run's own, in a temporary folder on a socket, and no longer there than this process.

use super::broken;
use crate::output::Failure;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs the server until its standard input ends. What it promised outlives a crash of processes, which is what is tried;
/// a power cut is not, so it need not wait for the disk.
const SERVER: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c max_connections=100 >"$2/log" 2>&1 &
server=$!
cat >/dev/null
kill -INT $server
wait $server
rm -rf "$2"
"#;

pub struct Postgres {
    dir: PathBuf,
    keeper: Child,
}

impl Postgres {
    pub fn start() -> Result<Self, Failure> {
        let programs = programs().ok_or_else(|| {
            Failure::new("no database", "PostgreSQL", "`postgres` and `initdb` on the path, or --database", "neither")
                .hint("apt-get install postgresql")
        })?;
        let dir = std::env::temp_dir().join(format!("littoral-bench-pg-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|e| broken(&e))?;
        let user = other_than_root();
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).map_err(|e| broken(&e))?;
        }
        let as_user = |command: &mut Command| {
            command.current_dir("/").stdout(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
        };
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["-U", "littoral", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"]);
        initdb.arg(dir.join("data"));
        as_user(&mut initdb);
        if !initdb.status().map_err(|e| broken(&e))?.success() {
            return Err(Failure::new("no database", "initdb", "an end without an error", "an error"));
        }
        let mut keeper = Command::new("sh");
        keeper.args(["-c", SERVER, "sh"]).arg(&programs).arg(&dir).stdin(Stdio::piped());
        as_user(&mut keeper);
        let keeper = keeper.spawn().map_err(|e| broken(&e))?;
        Ok(Self { dir, keeper })
    }

    pub fn url(&self) -> String {
        format!("postgres:///postgres?user=littoral&host={}", self.dir.display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Where the server's programs are: Debian does not put them on the path.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(versions.map(|version| version.path().join("bin")));
    let has = |place: &Path, program: &str| place.join(program).exists();
    places.into_iter().find(|place| has(place, "postgres") && has(place, "initdb"))
}

/// PostgreSQL refuses to run as root.
fn other_than_root() -> Option<(u32, u32)> {
    fs::metadata("/proc/self").ok().filter(|own| own.uid() == 0)?;
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((fields.next()??, fields.next()??))
    };
    of("postgres").or_else(|| of("nobody"))
}
