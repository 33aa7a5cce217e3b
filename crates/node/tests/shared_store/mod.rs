//! What replicas share, started by a test on this machine: a PostgreSQL server, and something that speaks S3.
//!
//! The server is a real one. It runs on a socket in a folder of its own and ends with the test process, however that ends.
//! Where PostgreSQL is not installed [`Postgres::here`] says so. S3 is [`s3`], a stand-in.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod s3;

use littoral_node::store::{Bucket, BucketOptions, PgPlace, PgStore};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);

/// Runs the server until its standard input ends, which is when the test process does. `stop` is as if it had crashed.
const SERVER: &str = r#"
start() {
  "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c max_connections=200 >>"$2/log" 2>&1 &
  server=$!
}
start "$@"
while read -r order; do
  case $order in
    stop) kill -QUIT $server; wait $server ;;
    start) start "$@" ;;
  esac
  echo done
done
kill -INT $server
wait $server
rm -rf "$2"
"#;

/// A server for all tests of one binary.
pub struct Postgres {
    dir: PathBuf,
    keeper: Child,
}

impl Postgres {
    /// `None`, and a line of why, where there is no PostgreSQL.
    pub async fn here() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
        let server = SERVER.get_or_init(|| Self::start("all")).as_ref()?;
        server.answers().await;
        Some(server)
    }

    /// A server of a test's own, to be stopped.
    pub async fn own(name: &str) -> Option<Self> {
        let server = Self::start(name)?;
        server.answers().await;
        Some(server)
    }

    async fn answers(&self) {
        let started = Instant::now();
        while let Err(e) = PgConnection::connect(&self.url("postgres")).await {
            assert!(started.elapsed() < START_LIMIT, "{e}: {:?}", std::fs::read_to_string(self.dir.join("log")));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `stop`, at once and without a word to anybody, or `start`.
    pub fn order(&mut self, order: &str) {
        writeln!(self.keeper.stdin.as_mut().unwrap(), "{order}").unwrap();
        let mut done = [0; 5];
        self.keeper.stdout.as_mut().unwrap().read_exact(&mut done).unwrap();
        assert_eq!(&done, b"done\n");
    }

    /// Sends all its processes a signal: `-STOP`, `-CONT`.
    pub fn signal(&self, signal: &str) {
        let file = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        let first = file.lines().next().unwrap();
        let parent_of = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned))
        };
        let all =
            std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let children: Vec<String> = all.filter(|pid| parent_of(pid).as_deref() == Some(first)).collect();
        let sent = Command::new("kill").arg(signal).arg(first).args(children).status().unwrap();
        // A child may have ended in between.
        assert!(sent.success() || signal == "-CONT");
    }

    fn start(name: &str) -> Option<Self> {
        let Some(programs) = programs() else {
            println!(
                "skipped: PostgreSQL is not installed (apt-get install postgresql): only the embedded store is tested"
            );
            return None;
        };
        let dir = std::env::temp_dir().join(format!("littoral-pg-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        // It refuses to run as root.
        let user = user();
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).unwrap();
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
        assert!(initdb.status().unwrap().success(), "initdb");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", SERVER, "sh"]).arg(&programs).arg(&dir).stdin(Stdio::piped());
        as_user(&mut keeper);
        keeper.stdout(Stdio::piped());
        Some(Self { dir, keeper: keeper.spawn().unwrap() })
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?user=littoral&host={}", self.dir.display())
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        self.url(&name)
    }
}

/// Where the server's programs are: Debian does not put them on the path.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for version in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        places.push(version.path().join("bin"));
    }
    places.into_iter().find(|place| place.join("postgres").exists() && place.join("initdb").exists())
}

/// Whom to be instead of root.
fn user() -> Option<(u32, u32)> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((fields.next()??, fields.next()??))
    };
    of("postgres").or_else(|| of("nobody"))
}

/// A bucket on `endpoint`, or in a folder.
pub fn bucket(endpoint: Option<&str>, name: &str, folder: &Path) -> BucketOptions {
    match endpoint {
        Some(endpoint) => BucketOptions {
            url: format!("s3://{name}/some/prefix"),
            endpoint: endpoint.into(),
            access_key: s3::ACCESS_KEY.into(),
            secret_key: "not looked at".into(),
            ..BucketOptions::default()
        },
        None => BucketOptions { url: format!("file://{}", folder.display()), ..BucketOptions::default() },
    }
}

pub async fn open(url: &str, bucket: &BucketOptions, dir: &Path) -> PgStore {
    PgStore::open(&PgPlace::parse(url).unwrap(), Bucket::new(bucket).unwrap(), dir).await.unwrap()
}
