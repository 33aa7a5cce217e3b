//! A server of a test's own. Each path has an answer, which a test may change; what was asked is written down.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use tokio::sync::watch;

/// So much of a body is sent at once.
const CHUNK_BYTES: usize = 4096;

#[derive(Clone, Default)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// After so many bytes there is silence, with the connection open until the test cuts it.
    pub silent_after: Option<usize>,
    /// Ranges are not known here.
    pub no_ranges: bool,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub method: Method,
    pub host: String,
    pub path: String,
    pub range: Option<String>,
    pub login: Option<String>,
}

struct Pages {
    pages: HashMap<String, Page>,
    asked: Vec<Asked>,
    cut: watch::Receiver<bool>,
}

pub struct Server {
    pub at: SocketAddr,
    pages: Arc<Mutex<Pages>>,
    cut: watch::Sender<bool>,
}

impl Page {
    pub fn of(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

impl Server {
    /// Until the tests end.
    pub fn start() -> Self {
        let (cut, when_cut) = watch::channel(false);
        let pages = Pages { pages: HashMap::new(), asked: Vec::new(), cut: when_cut };
        let pages = Arc::new(Mutex::new(pages));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let router = Router::new().fallback(answer).with_state(pages.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { at, pages, cut }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    pub fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().pages.insert(path.to_owned(), page);
    }

    /// Ends the connections that are silent, now and from now on.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// What was asked since this was asked last.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.pages.lock().unwrap().asked)
    }
}

async fn answer(State(pages): State<Arc<Mutex<Pages>>>, request: Request) -> Response {
    let text = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
    let asked = Asked {
        method: request.method().clone(),
        host: request.uri().host().map(str::to_owned).or_else(|| text(request.headers(), "host")).unwrap_or_default(),
        path: request.uri().path().to_owned(),
        range: text(request.headers(), "range"),
        login: text(request.headers(), "authorization"),
    };
    let (page, mut cut) = {
        let mut pages = pages.lock().unwrap();
        pages.asked.push(asked.clone());
        let Some(page) = pages.pages.get(&asked.path) else { return empty(404) };
        (page.clone(), pages.cut.clone())
    };
    let mut response = Response::builder().status(page.status);
    for (name, value) in &page.headers {
        response = response.header(name, value);
    }
    let from = asked.range.filter(|_| page.status == 200 && !page.no_ranges).map(|range| {
        range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse::<usize>().unwrap()
    });
    let body = match from {
        Some(from) if from >= page.body.len() => return empty(416),
        Some(from) => {
            let (last, all) = (page.body.len() - 1, page.body.len());
            response = response.status(206).header("content-range", format!("bytes {from}-{last}/{all}"));
            page.body[from..].to_vec()
        }
        None => page.body,
    };
    response = response.header("content-length", body.len());
    if asked.method == Method::HEAD {
        return response.body(Body::empty()).unwrap();
    }
    let end = page.silent_after.unwrap_or(body.len()).min(body.len());
    let chunks: Vec<std::io::Result<Vec<u8>>> =
        body[..end].chunks(CHUNK_BYTES).map(|chunk| Ok(chunk.to_vec())).collect();
    let silence = page.silent_after.map(|_| {
        stream::once(async move {
            cut.wait_for(|cut| *cut).await.unwrap();
            Err(std::io::Error::other("cut"))
        })
    });
    let body = Body::from_stream(stream::iter(chunks).chain(stream::iter(silence).flatten()));
    response.body(body).unwrap()
}

fn empty(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
