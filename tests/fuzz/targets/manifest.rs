//! Bytes as a manifest: refused with a reason, or read, written and read again to the same.

use std::path::Path;

use vhdkit::ErrorKind;
use vhdkit::snapshot::Manifest;

/// The name of the file, which the manifest must agree with.
const NAME: &str = "store/web/000002-tue.json";

pub fn run(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    check(rest);
    if how % 4 != 0 {
        // With the checksum that the text would have.
        let sealed = seal(rest);
        if check(&sealed).is_some() {
            // Any other byte than those that count is found.
            let at = usize::from(*how) * 7 % sealed.len();
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(check(&bad).is_none(), "a flipped bit passed");
            assert!(check(&sealed[..at]).is_none());
        }
    }
}

/// All lines but the checksum's and the closing brace, and then those.
fn seal(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let checksum = blake3::hash(text).to_hex();
    out.extend(format!("  \"checksum\": \"{checksum}\"\n}}\n").bytes());
    out
}

fn check(bytes: &[u8]) -> Option<Manifest> {
    match Manifest::decode(bytes, Path::new(NAME)) {
        Ok(manifest) => {
            let written = manifest.encode().unwrap();
            let again = Manifest::decode(&written, Path::new(NAME)).unwrap();
            assert_eq!(again, manifest);
            assert_eq!(again.encode().unwrap(), written);
            assert_eq!(manifest.stem().manifest(), "000002-tue.json");
            assert_eq!(manifest.is_base(), manifest.parent.is_none());
            assert!(manifest.virtual_size > 0 && manifest.virtual_size % 512 == 0);
            assert_eq!(
                manifest.source.footer.is_some(),
                manifest.source.footer().is_some()
            );
            Some(manifest)
        }
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            assert_eq!(error.path(), Some(Path::new(NAME)));
            assert!(!error.to_string().is_empty());
            None
        }
    }
}
