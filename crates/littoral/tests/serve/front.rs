//! A server before another one, which passes on what it is asked, or answers otherwise.

use super::client::open;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

pub enum Act {
    Pass,
    /// What is asked, and what is answered, otherwise.
    Edit(fn(String) -> String, fn(String) -> String),
    /// A status, lines of the head, the body.
    Say(String, String, String),
    /// Events, and then nothing, while the connection stays.
    Begin(&'static str),
    Hang,
}

impl Act {
    pub fn say(status: &str, head: &str, body: &Value) -> Self {
        Self::Say(status.into(), format!("content-type: application/json\r\n{head}"), body.to_string())
    }

    /// A stream that ends there.
    pub fn events(text: &str) -> Self {
        Self::Say("200 OK".into(), "content-type: text/event-stream\r\n".into(), text.into())
    }
}

pub struct Front {
    pub at: SocketAddr,
    posts: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Front {
    /// `act` has the path and the body of each request.
    pub fn of(place: SocketAddr, act: impl Fn(&str, &str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, act, posts) = (listener.local_addr().unwrap(), Arc::new(act), Arc::new(AtomicUsize::new(0)));
        let last = Arc::new(Mutex::new(None));
        let (count, when) = (posts.clone(), last.clone());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let (act, count, when) = (act.clone(), count.clone(), when.clone());
                thread::spawn(move || {
                    let Some((method, path, body, near)) = request(near) else { return };
                    if method == "POST" {
                        count.fetch_add(1, SeqCst);
                        *when.lock().unwrap() = Some(Instant::now());
                    }
                    answer(near, place, &method, &path, body, &*act);
                });
            }
        });
        Self { at, posts, last }
    }

    /// Requests that came by POST so far.
    pub fn posts(&self) -> usize {
        self.posts.load(SeqCst)
    }

    pub fn last_post(&self) -> Instant {
        self.last.lock().unwrap().expect("a request")
    }
}

fn request(mut near: TcpStream) -> Option<(String, String, String, TcpStream)> {
    let (mut asked, mut piece) = (Vec::new(), [0; 16_384]);
    let whole = |asked: &[u8]| {
        let head = asked.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let lines = String::from_utf8_lossy(&asked[..head]).to_lowercase();
        let length = lines.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        (asked.len() >= head + length.unwrap_or(0)).then_some((lines, head))
    };
    let (head, body) = loop {
        let Ok(count @ 1..) = near.read(&mut piece) else { return None };
        asked.extend_from_slice(&piece[..count]);
        if let Some((head, at)) = whole(&asked) {
            break (head, String::from_utf8_lossy(&asked[at..]).into_owned());
        }
    };
    let mut words = head.split(' ');
    Some((words.next()?.to_uppercase(), words.next()?.to_owned(), body, near))
}

fn answer(
    mut near: TcpStream,
    place: SocketAddr,
    method: &str,
    path: &str,
    body: String,
    act: &dyn Fn(&str, &str) -> Act,
) {
    let pass = |body: &str| {
        let reply = open(place, method, path, &[], body).whole();
        let kind = if reply.body.starts_with("data: ") { "text/event-stream" } else { "application/json" };
        (format!("{} As Passed On", reply.status), format!("content-type: {kind}\r\n"), reply.body)
    };
    let (status, head, said) = match act(path, &body) {
        Act::Pass => pass(&body),
        Act::Edit(asked, told) => {
            let (status, head, said) = pass(&asked(body));
            (status, head, told(said))
        }
        Act::Say(status, head, said) => (status, head, said),
        Act::Begin(events) => {
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n";
            let _ = write!(near, "{head}{events}");
            let _ = near.read(&mut [0]);
            return;
        }
        Act::Hang => {
            let _ = near.read(&mut [0]);
            return;
        }
    };
    let length = said.len();
    let _ = write!(near, "HTTP/1.1 {status}\r\nconnection: close\r\n{head}content-length: {length}\r\n\r\n{said}");
}
