//! What is known about the access that requests use, without the credentials themselves.

use super::name::decoded;
use super::secret::Secret;
use super::times;

/// The kind of access that requests use: for advice, and for the line that reports which was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// A signature (SAS).
    Signature {
        /// Start of its validity, in seconds since 1970.
        from: Option<i64>,
        /// End of its validity, in seconds since 1970.
        until: Option<i64>,
        /// The letters of its permissions.
        permissions: Option<String>,
        /// Where it came from.
        origin: &'static str,
    },
    /// The key of the account.
    Key {
        /// Where it came from.
        from: &'static str,
    },
    /// A token of an identity.
    Token {
        /// Where it came from.
        from: &'static str,
    },
    /// None: only public data can be read.
    None,
}

impl Access {
    /// The access of a signature.
    pub(super) fn of_signature(sas: &Secret, origin: &'static str) -> Self {
        let value = |name: &str| {
            let mut parts = sas
                .expose()
                .split('&')
                .filter_map(|part| part.split_once('='));
            let found = parts.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.and_then(|(_, value)| decoded(value))
        };
        Self::Signature {
            from: value("st").and_then(|time| times::from_signature(&time)),
            until: value("se").and_then(|time| times::from_signature(&time)),
            permissions: value("sp"),
            origin,
        }
    }

    /// A short description.
    pub fn what(&self) -> String {
        match self {
            Self::Signature { origin, .. } => format!("a signature (SAS) from {origin}"),
            Self::Key { from } => format!("the account key from {from}"),
            Self::Token { from } => format!("a token from {from}"),
            Self::None => "nothing".into(),
        }
    }

    /// Advice if access is refused because it is insufficient.
    pub(super) fn missing(&self) -> String {
        let now = match self {
            Self::None => String::new(),
            _ => format!("{} wasn't accepted; ", self.what()),
        };
        format!(
            "{now}give access by a signature (SAS) in the address, by AZURE_STORAGE_SAS_TOKEN, \
             AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_KEY, or sign in with: az login"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_tells_when_and_what_it_allows() {
        let sas = Secret::new("st=2026-11-28&se=2026-11-28T06%3A13%3A57Z&sp=rl&sig=hidden");
        let access = Access::of_signature(&sas, "the address");
        assert_eq!(
            access,
            Access::Signature {
                from: Some(1_795_824_000),
                until: Some(1_795_846_437),
                permissions: Some("rl".into()),
                origin: "the address",
            }
        );
        assert!(!format!("{access:?}{}{}", access.what(), access.missing()).contains("hidden"));
    }
}
