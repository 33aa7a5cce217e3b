//! Where the database is, and how it is reached.

use super::super::StoreError;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt;
use std::net::IpAddr;

/// A transaction whose process does nothing is ended by the database: its locks would keep others waiting.
const IDLE_IN_TRANSACTION_MS: u32 = 5_000;
const LOCK_TIMEOUT_MS: u32 = 10_000;
const STATEMENT_TIMEOUT_MS: u32 = 60_000;
/// The database notices within about this time that a machine is gone which said no goodbye.
const GONE_AFTER_S: u32 = 5;

/// `postgres://user:password@host:port/database?sslmode=...`. Never printed with its password.
#[derive(Clone)]
pub struct PgPlace {
    pub(super) options: PgConnectOptions,
    at: String,
}

impl PgPlace {
    /// Over a network the server proves by a certificate who it is (`sslmode=verify-full`), unless the URL says otherwise.
    ///
    /// # Errors
    /// [`StoreError::Database`]; the URL is not repeated, it may hold a password.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Database { at: "the database's URL".into(), why, passes: false };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("postgres://user:password@host:port/database expected".into()));
        }
        let parsed: Result<PgConnectOptions, sqlx::Error> = url.parse();
        let mut options = parsed.map_err(|_| wrong("postgres://user:password@host:port/database expected".into()))?;
        let says_how =
            url.split_once('?').is_some_and(|(_, rest)| rest.contains("sslmode=") || rest.contains("ssl-mode="));
        let near = options.get_socket().is_some()
            || options.get_host() == "localhost"
            || options.get_host().parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if !says_how {
            options = options.ssl_mode(if near { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
        }
        options = options.application_name("littoral").disable_statement_logging().options([
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS.to_string()),
            ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
            ("statement_timeout", STATEMENT_TIMEOUT_MS.to_string()),
            ("tcp_keepalives_idle", GONE_AFTER_S.to_string()),
            ("tcp_keepalives_interval", "1".into()),
            ("tcp_keepalives_count", "3".into()),
            ("tcp_user_timeout", (GONE_AFTER_S * 1000).to_string()),
            // A commit that returned survives a power cut of the server.
            ("synchronous_commit", "on".into()),
        ]);
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let at = format!("postgres://{host}/{}", options.get_database().unwrap_or_default());
        Ok(Self { options, at })
    }

    /// For messages: without user and password.
    pub fn at(&self) -> &str {
        &self.at
    }
}

impl fmt::Debug for PgPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_said() {
        for url in
            ["postgres://me:s3cret@db.example:5433/fleet", "postgres://me:s3cret@db:port/x", "mysql://me:s3cret@x"]
        {
            let said = match PgPlace::parse(url) {
                Ok(place) => format!("{place:?} {}", place.at()),
                Err(e) => format!("{e} {e:?}"),
            };
            assert!(!said.contains("s3cret"), "{said}");
        }
        assert_eq!(
            PgPlace::parse("postgres://me:s3cret@db.example:5433/fleet").unwrap().at(),
            "postgres://db.example:5433/fleet"
        );
    }

    #[test]
    fn over_a_network_the_server_has_to_prove_itself() {
        let mode = |url: &str| format!("{:?}", PgPlace::parse(url).unwrap().options.get_ssl_mode());
        assert_eq!(mode("postgres://me@db.example/x"), "VerifyFull");
        assert_eq!(mode("postgres://me@db.example/x?sslmode=require"), "Require");
        assert_eq!(mode("postgres://me@127.0.0.1/x"), "Prefer");
        assert_eq!(mode("postgres:///x?host=/run/db"), "Prefer");
    }
}
