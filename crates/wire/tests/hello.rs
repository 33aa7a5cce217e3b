//! Old meets new: the first frames of two releases.

use littoral_wire::DecodeError;
use littoral_wire::bounded::Text;
use littoral_wire::hello::{HELLO_BYTES_MAX, Hello, HelloError, PROTOCOL};

fn speaker(protocol: u16, software: &str) -> Hello {
    Hello { protocol, software: Text::from(software), kernels: Text::default() }
}

/// Both sides name both versions and both programs, whichever is the older.
#[test]
fn old_client_new_server() {
    let client = speaker(1, "littoral 0.1.0");
    let server = speaker(2, "littoral 7.0.0");
    for (us, them) in [(&client, &server), (&server, &client)] {
        let error = us.agree(&them.encode()).unwrap_err();
        let expected = HelloError::OtherProtocol {
            ours: us.protocol,
            our_software: us.software.clone(),
            theirs: them.protocol,
            their_software: them.software.clone(),
        };
        assert_eq!(error, expected);
        assert_eq!(
            error.to_string(),
            format!(
                "protocol versions differ: this machine ({}) speaks {}, the peer ({}) speaks {}; install the same \
                 release on both",
                us.software, us.protocol, them.software, them.protocol
            )
        );
    }
}

/// A later protocol may add bytes to its hello; what this one reads stays where it is.
#[test]
fn hello_of_a_later_protocol() {
    let mut frame = speaker(PROTOCOL + 1, "littoral 9").encode();
    frame.extend([0xff; 40]);
    assert_eq!(Hello::decode(&frame), Ok(speaker(PROTOCOL + 1, "littoral 9")));
    frame.resize(HELLO_BYTES_MAX, 0);
    assert!(Hello::decode(&frame).is_ok());
    frame.push(0);
    let (maximum, got) = (HELLO_BYTES_MAX, HELLO_BYTES_MAX + 1);
    assert_eq!(Hello::decode(&frame), Err(DecodeError::TooLong { what: "hello", offset: 0, maximum, got }));
}

#[test]
fn same_protocol_other_release() {
    let theirs = speaker(PROTOCOL, "littoral 0.1.9");
    assert_eq!(Hello::new("littoral 0.1.0", "kernels-1").agree(&theirs.encode()), Ok(theirs));
}

/// Machines of one protocol may compute differently: each knows how the other does.
#[test]
fn kernels_are_named_to_the_peer() {
    let (ours, theirs) = (Hello::new("littoral 0.1.0", "kernels-1"), Hello::new("littoral 0.1.9", "kernels-2"));
    let heard = ours.agree(&theirs.encode()).unwrap();
    assert_eq!(&*heard.kernels, "kernels-2");
    assert_eq!(heard, theirs);
    let mut longer = theirs.encode();
    longer.extend([7; 9]);
    assert_eq!(ours.agree(&longer), Ok(theirs));
}

#[test]
fn not_littoral_at_all() {
    let ours = Hello::new("littoral 0.1.0", "kernels-1");
    for frame in [&b""[..], b"LTR", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", &[0; 80]] {
        let error = ours.agree(frame).unwrap_err();
        assert!(matches!(error, HelloError::NotLittoral(_)), "{error}");
        assert!(error.to_string().starts_with("the peer does not speak Littoral: "), "{error}");
    }
}

#[test]
fn hello_cut_at_every_byte() {
    let frame = Hello::new("littoral 0.1.0", "kernels-1").encode();
    for len in 0..frame.len() {
        assert!(matches!(Hello::decode(&frame[..len]), Err(DecodeError::Truncated { .. })), "{len}");
    }
}

#[test]
fn software_that_writes_to_our_terminal() {
    let theirs = speaker(PROTOCOL + 1, "\x1b]0;owned\x07\x1b[2Jlittoral").encode();
    let said = Hello::new("littoral 0.1.0", "kernels-1").agree(&theirs).unwrap_err().to_string();
    assert!(!said.contains(char::is_control), "{said:?}");
}
