//! The files of a machine's state folder that people or `join` write: configurations of the three roles, enrolment,
//! address, key. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::{one_line, site};
use littoral_node::config::{CloudConfig, Config, DeviceConfig, EdgeConfig};
use littoral_node::deploy::{ADDRESS_FILE, ENROLMENT_FILE, Enrolment, KEY_FILE, read_address};
use littoral_node::host::keys;
use littoral_wire::NodeId;
use std::fmt::Debug;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match (choice % 6, std::str::from_utf8(bytes)) {
        (0, Ok(text)) => role::<CloudConfig>(text),
        (1, Ok(text)) => role::<EdgeConfig>(text),
        (2, Ok(text)) => role::<DeviceConfig>(text),
        (3, _) => {
            site::write(ENROLMENT_FILE, bytes);
            match Enrolment::load(site::folder()) {
                Ok(enrolment) => {
                    let enrolment = enrolment.expect("a file");
                    let text = toml::to_string(&enrolment).expect("an enrolment as text");
                    assert_eq!(toml::from_str(&text), Ok(enrolment));
                }
                Err(error) => one_line(error),
            }
        }
        (4, _) => {
            site::write(ADDRESS_FILE, bytes);
            match read_address(site::folder()) {
                Ok(address) => {
                    let address = address.expect("a file");
                    assert_eq!(address.to_string().parse().ok(), Some(address));
                }
                Err(error) => one_line(error),
            }
        }
        (5, _) => {
            let path = site::write(KEY_FILE, bytes);
            set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
            match keys::load_or_create(&path) {
                Ok(key) => {
                    let digits = NodeId(key.to_bytes()).to_string();
                    assert_eq!(std::str::from_utf8(bytes).map(str::trim), Ok(digits.as_str()));
                }
                Err(error) => one_line(error),
            }
        }
        _ => {}
    }
});

/// A configuration that is taken can be written, and is the same then.
fn role<C: Config + serde::Serialize + PartialEq + Debug>(text: &str) {
    match C::parse(text, "role.toml") {
        Ok(config) => {
            let written = toml::to_string(&config).expect("a configuration as text");
            assert_eq!(C::parse(&written, "role.toml"), Ok(config));
        }
        Err(error) => {
            assert!(error.line <= text.matches('\n').count() + 1, "a line that the file does not have");
            one_line(error);
        }
    }
}
