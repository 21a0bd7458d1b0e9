//! What a client sends that breaks the protocol ends its own connection or gets an error, and concerns nobody else.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::client::{Client, OPTION, Served, contexts, name_and, option_bytes, request_bytes};
use crate::disk::{Random, disk};

const UNSUPPORTED: u32 = 0x8000_0001;
const POLICY: u32 = 0x8000_0002;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;

fn served() -> Served {
    Served::new(disk(7, 3 << 20))
}

/// Each option that makes no sense gets its error, and the next one is understood again.
#[test]
fn options_that_make_no_sense_get_an_error() {
    let served = served();
    let mut client = served.client();
    client.send(&1_u32.to_be_bytes()).unwrap();
    let many = [&name_and("", &u32::MAX.to_be_bytes())[..], &[0; 64]].concat();
    let long = "x".repeat(5000);
    let cases: Vec<(u32, Vec<u8>, u32)> = vec![
        (0, vec![], UNSUPPORTED),
        (4, vec![], UNSUPPORTED),
        (11, vec![], UNSUPPORTED),
        (99, vec![1; 64 << 10], UNSUPPORTED),
        (u32::MAX, vec![1; 3], UNSUPPORTED),
        (5, vec![], POLICY),
        (3, vec![0], INVALID),
        (8, vec![0; 4], INVALID),
        (7, vec![], INVALID),
        (7, vec![0; 5], INVALID),
        (7, name_and("", &[0, 9]), INVALID),
        (7, name_and("", &[0, 0, 0]), INVALID),
        (6, u32::MAX.to_be_bytes().to_vec(), INVALID),
        (6, name_and(&long, &[0, 0]), INVALID),
        (6, name_and("nothing", &[0, 0]), UNKNOWN),
        (6, name_and("\u{1b}[2J", &[0, 0]), UNKNOWN),
        (6, vec![0, 0, 0, 1, 0xFF, 0, 0], UNKNOWN),
        (99, vec![7; (64 << 10) + 1], TOO_BIG),
        (9, many.clone(), INVALID),
        // Before structured replies are agreed on.
        (10, contexts("", &["base:allocation"]), INVALID),
    ];
    for (option, data, kind) in &cases {
        client.option(*option, data).unwrap();
        assert_eq!(
            client.answer().unwrap().0,
            *kind,
            "{option} {:?}",
            data.get(..8)
        );
    }
    client.option(8, &[]).unwrap();
    assert_eq!(client.answer().unwrap().0, 1);
    client.option(10, &many).unwrap();
    assert_eq!(client.answer().unwrap().0, INVALID);
    client.option(10, &contexts("x", &[])).unwrap();
    assert_eq!(client.answer().unwrap().0, UNKNOWN);
    client
        .option(10, &contexts("", &["base:other", "qemu:"]))
        .unwrap();
    assert_eq!(client.answer().unwrap().0, 1);
    client.option(7, &name_and("", &[0, 0])).unwrap();
    while client.answer().unwrap().0 != 1 {}
    // No context was agreed on.
    client.request(7, 0, 4096).unwrap();
    assert_eq!(client.reply().unwrap(), Err(22));
    assert_eq!(client.read(5, 10).unwrap(), served.bytes[5..15]);
    served.assert_well();
    served.faults.check().unwrap();
}

/// Where no reply is possible, the connection ends.
#[test]
fn what_can_not_be_understood_ends_the_connection() {
    let served = served();
    let one = 1_u32.to_be_bytes();
    let cases: Vec<Vec<u8>> = vec![
        u32::MAX.to_be_bytes().to_vec(),
        4_u32.to_be_bytes().to_vec(),
        [&one[..], b"IHAVEOPS\0\0\0\x03\0\0\0\0"].concat(),
        [&one[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"].concat(),
        [&one[..], OPTION, b"\0\0\0\x03\xFF\xFF\xFF\xFF"].concat(),
        [&one[..], OPTION, b"\0\0\0\x01\0\x10\0\0"].concat(),
        [&one[..], &option_bytes(1, b"nothing")].concat(),
        [&one[..], &option_bytes(99, &[]).repeat(200)].concat(),
        [&one[..], &option_bytes(2, &[])].concat(),
    ];
    for (n, bytes) in cases.iter().enumerate() {
        let mut client = served.client();
        // It may be closed before all is sent.
        let _ = client.send(bytes);
        assert!(client.is_closed(), "{n}");
    }
    for bytes in [
        b"0123456789012345678901234567".to_vec(),
        request_bytes(0, 1, 0, u32::MAX),
        request_bytes(0, 2, 0, 0),
    ] {
        let mut client = served.client();
        client.go("", true).unwrap();
        client.send(&bytes).unwrap();
        assert!(client.is_closed());
    }
    served.assert_well();
}

/// Requests for what isn't there, or can't be done, are refused, and the connection goes on.
#[test]
fn requests_that_can_not_be_met_are_refused() {
    let served = served();
    let size = served.bytes.len() as u64;
    let mut client = served.client();
    client.go("", true).unwrap();
    for (kind, offset, len, number) in [
        (0, size, 1, 22),
        (0, size - 1, 2, 22),
        (0, u64::MAX, 1, 22),
        (0, u64::MAX - 4, u32::MAX, 22),
        (0, 0, 0, 22),
        (0, 0, u32::MAX, 22),
        (7, size, 512, 22),
        (7, 0, 0, 22),
        (7, u64::MAX, u32::MAX, 22),
        (5, size, 1, 22),
        (4, 0, 512, 1),
        (6, 0, u32::MAX, 1),
        (8, 0, 0, 22),
        (u16::MAX, 0, 0, 22),
    ] {
        client.request(kind, offset, len).unwrap();
        assert_eq!(
            client.reply().unwrap(),
            Err(number),
            "{kind} {offset} {len}"
        );
    }
    client.request(1, 0, 4096).unwrap();
    client.send(&[9; 4096]).unwrap();
    assert_eq!(client.reply().unwrap(), Err(1));
    client.request(3, 0, 0).unwrap();
    assert_eq!(client.reply().unwrap(), Ok(vec![]));
    client.request(5, 0, 4096).unwrap();
    assert_eq!(client.reply().unwrap(), Ok(vec![]));
    // All of it, in one piece and in several.
    let len = u32::try_from(size).unwrap();
    assert!(client.read(0, len).unwrap() == served.bytes);
    client.send(&request_bytes(4, 0, 0, len)).unwrap();
    assert!(client.reply().unwrap().unwrap() == served.bytes);
    assert_eq!(
        client.read(size - 1, 1).unwrap(),
        served.bytes[served.bytes.len() - 1..]
    );
}

/// A read by a client that knows no structured replies, larger than a piece.
#[test]
fn simple_replies_are_whole() {
    let served = served();
    let mut client = served.client();
    client.go("", false).unwrap();
    client.request(0, 511, (2 << 20) + 3).unwrap();
    let head = client.take(16).unwrap();
    assert_eq!(head, *b"\x67\x44\x66\x98\0\0\0\0a handle");
    assert!(client.take((2 << 20) + 3).unwrap() == served.bytes[511..(2 << 20) + 514]);
    client.request(0, u64::MAX, 1).unwrap();
    let head = client.take(16).unwrap();
    assert_eq!(head, *b"\x67\x44\x66\x98\0\0\0\x16a handle");
    // And the oldest way to choose an export.
    let mut client = served.client();
    client.send(&0_u32.to_be_bytes()).unwrap();
    client.option(1, b"disk.raw").unwrap();
    let about = client.take(134).unwrap();
    assert_eq!(about[..8], (served.bytes.len() as u64).to_be_bytes());
    assert!(about[10..].iter().all(|byte| *byte == 0));
    client.request(0, 1, 1).unwrap();
    assert_eq!(client.take(17).unwrap()[16], served.bytes[1]);
}

/// Cut after each byte of a good conversation.
#[test]
fn a_connection_may_be_cut_anywhere() {
    let served = served();
    let talk = [
        &3_u32.to_be_bytes()[..],
        &option_bytes(8, &[]),
        &option_bytes(10, &contexts("", &["base:allocation"])),
        &option_bytes(7, &name_and("", &[0, 0])),
        &request_bytes(0, 0, 0, 1 << 20),
        &request_bytes(0, 7, 0, 1 << 20),
        &request_bytes(0, 1, 0, 100),
    ]
    .concat();
    for len in 0..talk.len() {
        let mut client = served.client();
        client.send(&talk[..len]).unwrap();
    }
    served.assert_well();
}

/// Bytes that mean nothing.
#[test]
fn noise_does_no_harm() {
    let served = served();
    let mut random = Random::new(11);
    for round in 0..200 {
        let mut client = served.client();
        if round % 2 == 0 {
            client.go("", round % 4 == 0).unwrap();
        }
        let mut noise = random.bytes(200);
        if round % 3 == 0 {
            // Requests of any kind, well formed.
            noise = (0..20)
                .flat_map(|_| {
                    let kind = u16::try_from(random.below(9)).unwrap();
                    let len = u32::try_from(random.below(1 << 17)).unwrap();
                    request_bytes(0, kind, random.below(4 << 20) as u64, len)
                })
                .collect();
        }
        let _ = client.send(&noise);
    }
    served.assert_well();
}

/// Clients that ask for much and take nothing, more clients than there may be, and some that say nothing.
#[test]
fn greedy_and_silent_clients_keep_nobody_away() {
    let served = served();
    let greedy: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = served.client();
            client.go("", true).unwrap();
            client.0.set_nonblocking(true).unwrap();
            for _ in 0..200 {
                if client.0.write(&request_bytes(0, 0, 0, 3 << 20)).is_err() {
                    break;
                }
            }
            client
        })
        .collect();
    served.assert_well();
    let silent: Vec<Client> = (0..40).map(|_| served.client()).collect();
    served.assert_well();
    let mut more: Vec<_> = Vec::new();
    for _ in 0..64 {
        more.push(std::os::unix::net::UnixStream::connect(served.socket()).unwrap());
    }
    // The last ones are turned away at once.
    let mut byte = [0; 32];
    let last = more.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(last.read(&mut byte).unwrap(), 0);
    drop((greedy, silent, more));
    let begun = Instant::now();
    loop {
        // Their threads take a moment to notice.
        let mut client = std::os::unix::net::UnixStream::connect(served.socket()).unwrap();
        if client.read(&mut byte).is_ok_and(|len| len > 0) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    served.assert_well();
    served.faults.check().unwrap();
}
