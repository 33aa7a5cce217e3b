//! The part of S3's HTTP that the store uses, in memory, on loopback: put, get, head, delete, list, and uploads in parts.
//!
//! A stand-in, no server: it sees that requests are signed by whom it knows but checks no signature. What matters here is
//! that a body appears whole or not at all, as on S3: an upload in parts shows nothing before it is completed.

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub const ACCESS_KEY: &str = "AKIDTEST";
const BODY_MAX: usize = 64 << 20;

#[derive(Default)]
pub struct Shelf {
    objects: BTreeMap<String, Bytes>,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    started: usize,
    /// Parts and bodies that are still taken; then the connection breaks.
    puts_left: Option<usize>,
}

#[derive(Clone)]
pub struct S3 {
    pub endpoint: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl S3 {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shelf = Arc::<Mutex<Shelf>>::default();
        let router = Router::new().fallback(answer).with_state(shelf.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, shelf }
    }

    pub fn names(&self) -> Vec<String> {
        self.shelf.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Changes what is under a name that ends so.
    pub fn damage(&self, end: &str) {
        let mut shelf = self.shelf.lock().unwrap();
        let (_, bytes) = shelf.objects.iter_mut().find(|(name, _)| name.ends_with(end)).unwrap();
        let mut changed = bytes.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        *bytes = changed.into();
    }

    /// After so many more bodies or parts nothing is taken any more.
    pub fn take_only(&self, puts: Option<usize>) {
        self.shelf.lock().unwrap().puts_left = puts;
    }
}

async fn answer(State(shelf): State<Arc<Mutex<Shelf>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let signed = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signed.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let name = parts.uri.path().trim_start_matches('/').to_owned();
    let query: BTreeMap<String, String> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.replace("%2F", "/")))
        .collect();
    let Ok(bytes) = to_bytes(body, BODY_MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    let mut shelf = shelf.lock().unwrap();
    let asks = |key: &str| query.get(key);
    if parts.method == Method::PUT {
        match &mut shelf.puts_left {
            Some(0) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Some(left) => *left -= 1,
            None => {}
        }
    }
    let etag = || [(header::ETAG, "\"x\"")];
    match (parts.method, asks("uploadId").cloned()) {
        (Method::POST, None) if asks("uploads").is_some() => {
            shelf.started += 1;
            let id = format!("upload-{}", shelf.started);
            shelf.uploads.insert(id.clone(), BTreeMap::new());
            xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        (Method::PUT, Some(id)) => {
            let number = asks("partNumber").and_then(|number| number.parse().ok());
            match (shelf.uploads.get_mut(&id), number) {
                (Some(upload), Some(number)) => {
                    upload.insert(number, bytes);
                    etag().into_response()
                }
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
        (Method::POST, Some(id)) => match shelf.uploads.remove(&id) {
            Some(upload) => {
                let whole: Vec<u8> = upload.into_values().flatten().collect();
                shelf.objects.insert(name, whole.into());
                xml("<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>".into())
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        (Method::DELETE, Some(id)) => {
            shelf.uploads.remove(&id);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::PUT, None) => {
            shelf.objects.insert(name, bytes);
            etag().into_response()
        }
        (Method::DELETE, None) => {
            shelf.objects.remove(&name);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::GET, None) if asks("list-type").is_some() => {
            let prefix = format!("{name}/{}", asks("prefix").cloned().unwrap_or_default());
            let found = shelf.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
            let contents: String = found
                .map(|(key, bytes)| {
                    let key = key.split_once('/').unwrap().1;
                    format!(
                        "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                         <ETag>\"x\"</ETag></Contents>",
                        bytes.len()
                    )
                })
                .collect();
            xml(format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"))
        }
        (method @ (Method::GET | Method::HEAD), None) => match shelf.objects.get(&name) {
            Some(bytes) => {
                let mut headers = HeaderMap::new();
                headers.insert(header::ETAG, "\"x\"".parse().unwrap());
                headers.insert(header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".parse().unwrap());
                headers.insert(header::CONTENT_LENGTH, bytes.len().into());
                let body = if method == Method::GET { bytes.clone() } else { Bytes::new() };
                (headers, axum::body::Body::from(body)).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

fn xml(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/xml")], text).into_response()
}
