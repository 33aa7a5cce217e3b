//! A folder with a model, the real binary with its home there, and a terminal that a test types into.

use super::tiny;
use nix::pty::{Winsize, openpty};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// For what usually takes milliseconds; a machine that is busy with other tests gets this long.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct World(PathBuf);

impl World {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("littoral-run-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tiny.gguf"), tiny::gguf(true)).unwrap();
        Self(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `littoral run tiny.gguf`, the most probable tokens.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("LITTORAL_HOME", self.path("home")).env("TERM", "xterm");
        command.current_dir(&self.0).args(["run", "tiny.gguf", "--temperature", "0", "--threads", "1"]).args(args);
        command
    }

    /// All of this on standard input.
    pub fn fed(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Somebody at a terminal.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    /// What has been shown since the last `until`.
    seen: String,
}

impl Terminal {
    pub fn open(world: &World, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let mut command = world.command(args);
        command.stdin(pty.slave.try_clone().unwrap());
        command.stdout(pty.slave.try_clone().unwrap());
        command.stderr(pty.slave);
        let child = command.spawn().unwrap();
        // Its ends of the terminal are the last ones: then reading ends when the process does.
        drop(command);
        let (mut screen, keys) = (File::from(pty.master.try_clone().unwrap()), File::from(pty.master));
        let (said, shown) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = screen.read(&mut piece) {
                if said.send(piece[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, shown, seen: String::new() }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// SIGINT, as the terminal sends it to the program that it belongs to.
    pub fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// Waits for a text, and returns what was shown until then.
    pub fn until(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = DEADLINE.saturating_sub(begin.elapsed());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(e) => panic!("{text:?} is not shown: {e}; {:?}", self.seen),
            }
        }
    }

    /// A line, once one is awaited.
    pub fn ask(&mut self, line: &str) {
        self.until(">>> ");
        self.press(&format!("{line}\r"));
    }

    pub fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
