//! The key file.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::host::keys::{KeyError, load_or_create};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_key_is_made_once() {
    let dir = Scratch::new("key");
    let path = dir.path().join("node.key");
    let key = load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(load_or_create(&path).unwrap().to_bytes(), key.to_bytes());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_cure() {
    let dir = Scratch::new("wide");
    let path = dir.path().join("node.key");
    load_or_create(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let refused = load_or_create(&path).unwrap_err().to_string();
    assert!(refused.contains("mode 640") && refused.contains(&format!("chmod 600 {}", path.display())), "{refused}");
}

#[test]
fn something_else_is_refused_and_not_shown() {
    let dir = Scratch::new("other");
    let path = dir.path().join("node.key");
    for text in ["", "secret", &"ab".repeat(33), &"zz".repeat(32)] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let refused = load_or_create(&path).unwrap_err();
        assert!(matches!(refused, KeyError::NotAKey { .. }), "{refused}");
        assert!(text.is_empty() || !refused.to_string().contains(text));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
