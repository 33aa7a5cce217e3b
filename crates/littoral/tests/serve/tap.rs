//! A wire between two processes that remembers what the first one sent, and can be cut in the middle of what comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub struct Tap {
    pub at: SocketAddr,
    sent: Arc<Mutex<Vec<u8>>>,
    back: Arc<AtomicU8>,
}

/// How fast what comes back is.
const FREE: u8 = 0;
const SLOW: u8 = 1;
const CUT: u8 = 2;
const MUTE: u8 = 3;

impl Tap {
    /// Listens, and passes on to a place that may come and go.
    pub fn to(place: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, sent) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (heard, back) = (sent.clone(), Arc::new(AtomicU8::new(FREE)));
        let valve = back.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(place) else { continue };
                let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (heard, valve) = (heard.clone(), valve.clone());
                let hear = move |bytes: &[u8]| heard.lock().unwrap().extend_from_slice(bytes);
                thread::spawn(move || pass(near, far, hear, &AtomicU8::new(FREE)));
                thread::spawn(move || pass(far_too, near_too, |_| {}, &valve));
            }
        });
        Self { at, sent, back }
    }

    /// What comes back takes a second for 20 kilobytes from now on, so that an answer can be seen to begin and be cut.
    pub fn slow(&self) {
        self.back.store(SLOW, SeqCst);
    }

    /// Nothing comes back any more, and connections end.
    pub fn cut(&self) {
        self.back.store(CUT, SeqCst);
    }

    /// Nothing comes back any more, and connections stay.
    pub fn mute(&self) {
        self.back.store(MUTE, SeqCst);
    }

    /// All that was sent so far.
    pub fn sent(&self) -> Vec<u8> {
        self.sent.lock().unwrap().clone()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut heard: impl FnMut(&[u8]), speed: &AtomicU8) {
    let mut piece = [0; 16_384];
    'wire: while let Ok(count @ 1..) = from.read(&mut piece) {
        heard(&piece[..count]);
        for part in piece[..count].chunks(200) {
            if speed.load(SeqCst) == SLOW {
                thread::sleep(Duration::from_millis(10));
            }
            if speed.load(SeqCst) == MUTE {
                continue;
            }
            if speed.load(SeqCst) == CUT || to.write_all(part).is_err() {
                break 'wire;
            }
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
