//! A server that says when it wants to be asked again is not asked before.

use axum::http::{HeaderMap, header};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Where it does not say how long.
const UNSAID: Duration = Duration::from_secs(5);
/// However long it says.
const LONGEST: Duration = Duration::from_secs(600);
/// So short a pause is waited out by who asks.
pub const SHORT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// From now on; one that ends later stays.
    pub fn begin(&self, length: Duration) {
        let end = Instant::now() + length.min(LONGEST);
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = Some(until.map_or(end, |before| before.max(end)));
    }

    /// What is left of it.
    pub fn left(&self) -> Option<Duration> {
        let until = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// After a short one; or what is left of a long one.
    pub async fn over(&self) -> Result<(), Duration> {
        match self.left() {
            Some(left) if left > SHORT => Err(left),
            Some(left) => {
                tokio::time::sleep(left).await;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// How long it wants to be left alone (`Retry-After`, RFC 9110, 10.2.3: seconds, or a date), 0 to 10 minutes.
pub fn wanted(headers: &HeaderMap) -> Duration {
    let said = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    said.and_then(|said| length(said.trim())).unwrap_or(UNSAID).min(LONGEST)
}

fn length(said: &str) -> Option<Duration> {
    let seconds = || said.parse().ok().map(Duration::from_secs);
    // A date that is over, or another clock's, is none to wait for.
    let date = || Some(httpdate::parse_http_date(said).ok()?.duration_since(SystemTime::now()).unwrap_or_default());
    seconds().or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn what_is_said_is_kept_within_bounds() {
        let of = |value: &'static str| {
            wanted(&HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(value))])).as_secs()
        };
        assert_eq!(["0", "7", " 90 ", "86400"].map(of), [0, 7, 90, 600]);
        assert_eq!(["-1", "soon", "99999999999999999999"].map(of), [5; 3]);
        // Of dates only what no clock can change.
        assert_eq!(["Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"].map(of), [0, 600]);
        assert_eq!(wanted(&HeaderMap::new()).as_secs(), 5);
    }

    #[test]
    fn a_shorter_pause_does_not_end_a_longer_one() {
        let pause = Pause::default();
        assert!(pause.left().is_none());
        pause.begin(Duration::from_secs(3_000));
        pause.begin(Duration::from_secs(1));
        let left = pause.left().unwrap();
        assert!(left > Duration::from_secs(500) && left <= LONGEST, "{left:?}");
    }
}
