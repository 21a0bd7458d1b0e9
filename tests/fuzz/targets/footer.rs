//! The footer: lossless for all bytes, never a panic, and a new footer of any identity is right.

use super::input::Input;
use vhdkit::vhd::{DiskType, FOOTER_SIZE, Footer, MAX_DYNAMIC_SIZE};

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let bytes: [u8; FOOTER_SIZE] = input.array();
    let footer = Footer::decode(&bytes);
    assert!(footer.encode() == bytes, "decode, encode lost something");
    // What takes long is done for some of the input only.
    let thorough = input.one_in(8);
    let at = input.u64();
    let verdict = footer.verify(at);
    if let Err(error) = &verdict {
        assert!(error.offset().is_some_and(|place| place >= at));
        assert!(error.hint().is_some() && error.field().is_some());
        assert!(!error.to_string().is_empty());
    } else {
        assert!(footer.verify_intact(at).is_ok());
    }
    let sealed = footer.clone().sealed();
    assert_eq!(
        sealed.verify_intact(0).is_ok(),
        footer.cookie == Footer::COOKIE
    );
    assert_eq!(
        Footer {
            checksum: footer.checksum,
            ..sealed.clone()
        },
        footer
    );
    if thorough {
        assert!(!footer.fields().is_empty());
        new_footer(&sealed, &mut input);
        new_footer(&footer, &mut input);
    }
}

/// Whatever a disk's identity, the footer of a disk that takes it over is right.
fn new_footer(identity: &Footer, input: &mut Input<'_>) {
    let disk_type = match input.u8() % 3 {
        0 => DiskType::Fixed,
        1 => DiskType::Dynamic,
        _ => identity.disk_type,
    };
    if let DiskType::Other(_) = disk_type {
        return;
    }
    let size = (input.u64() % MAX_DYNAMIC_SIZE / 512 + 1) * 512;
    for size in [size, identity.current_size] {
        let possible = size != 0 && size % 512 == 0 && size <= MAX_DYNAMIC_SIZE;
        if possible {
            let new = Footer::for_disk(disk_type, size, Some(identity));
            assert!(new.verify(0).is_ok(), "{:?}", new.verify(0));
            assert_eq!((new.disk_type, new.current_size), (disk_type, size));
            assert_eq!(new.unique_id, identity.unique_id);
            assert_eq!(Footer::decode(&new.encode()), new);
        }
    }
}
