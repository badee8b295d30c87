//! Who somebody is, by address or account.

use std::collections::BTreeMap;

use blackwater_base::settings::fits;
use serde::{Deserialize, Serialize};

use crate::config::Person;

/// The people that the settings name.
#[derive(Clone, Debug)]
pub struct People(Vec<Known>);

#[derive(Clone, Debug)]
struct Known {
    name: String,
    /// In lower case; a `*` stands for anything.
    emails: Vec<String>,
    accounts: Vec<String>,
}

/// Who somebody says to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name and the address as git has them, `Name <name@example.com>`.
    pub raw: String,
    /// The ids of the account: `account_id` and `{uuid}`.
    pub accounts: Vec<String>,
}

/// Somebody whom the settings do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// How often.
    pub count: u64,
    /// The first time: the repository, and the commit or pull request.
    pub first: String,
}

/// Those whom the settings do not know, by address or account.
pub type Unknowns = BTreeMap<String, Unknown>;

impl Identity {
    /// The address, in lower case.
    #[must_use]
    pub fn email(&self) -> Option<String> {
        let (_, rest) = self.raw.rsplit_once('<')?;
        let email = rest.split('>').next()?.trim().to_lowercase();
        (!email.is_empty()).then_some(email)
    }

    /// What tells somebody unknown from others: the address, else the account, else what there is.
    fn label(&self) -> String {
        let account = || self.accounts.first().cloned();
        let raw = || Some(self.raw.trim().to_owned()).filter(|raw| !raw.is_empty());
        self.email().or_else(account).or_else(raw).unwrap_or_else(|| "nobody".into())
    }
}

impl People {
    /// Those of the settings.
    #[must_use]
    pub fn new(people: &[Person]) -> Self {
        let known = |person: &Person| Known {
            name: person.name.clone(),
            emails: person.emails.iter().map(|email| email.to_lowercase()).collect(),
            accounts: person.accounts.clone(),
        };
        Self(people.iter().map(known).collect())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|known| known.name.as_str())
    }

    /// Who it is: by the account first, which nobody else can have, then by a whole address, then by one with a `*`.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Option<&str> {
        let email = identity.email();
        let by_account = |known: &&Known| identity.accounts.iter().any(|account| known.accounts.contains(account));
        let is = |known: &&Known| email.as_ref().is_some_and(|email| known.emails.contains(email));
        let like = |known: &&Known| {
            email.as_ref().is_some_and(|email| known.emails.iter().any(|pattern| fits(pattern, email)))
        };
        let all = || self.0.iter();
        let found = all().find(by_account).or_else(|| all().find(is)).or_else(|| all().find(like));
        found.map(|known| known.name.as_str())
    }

    /// Who it is; somebody unknown is noted.
    pub fn find_or_note(&self, identity: &Identity, place: &str, unknown: &mut Unknowns) -> Option<&str> {
        let found = self.find(identity);
        if found.is_none() {
            let noted = unknown.entry(identity.label()).or_insert(Unknown { count: 0, first: place.into() });
            noted.count += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_known_by_any_address_or_account() {
        let person = |name: &str, emails: &[&str], accounts: &[&str]| Person {
            name: name.into(),
            emails: emails.iter().map(|email| (*email).to_owned()).collect(),
            accounts: accounts.iter().map(|account| (*account).to_owned()).collect(),
        };
        let people = People::new(&[
            person("ONE", &["One@Example.com", "*+one@users.noreply.example.com"], &["557058:0a1b"]),
            person("TWO", &["two@example.com"], &["{0c}"]),
        ]);
        let find = |raw: &str, account: &str| {
            let accounts = if account.is_empty() { vec![] } else { vec![account.to_owned()] };
            people.find(&Identity { raw: raw.into(), accounts }).map(str::to_owned)
        };
        for (raw, account, expected) in [
            ("One <one@example.com>", "", Some("ONE")),
            ("Other name <ONE@EXAMPLE.COM>", "", Some("ONE")),
            ("One <12345+one@users.noreply.example.com>", "", Some("ONE")),
            ("Two <two@example.com>", "557058:0a1b", Some("ONE")),
            ("", "{0c}", Some("TWO")),
            ("Nobody <nobody@example.com>", "", None),
            ("Name <>", "", None),
            ("two@example.com", "", None),
            ("", "", None),
        ] {
            assert_eq!(find(raw, account).as_deref(), expected, "{raw} {account}");
        }
        let mut unknown = Unknowns::new();
        for (raw, place) in [("A <a@b>", "r 1"), ("B <A@B>", "r 2"), ("Name <>", "r 3"), ("", "r 4")] {
            people.find_or_note(&Identity { raw: raw.into(), accounts: vec![] }, place, &mut unknown);
        }
        let labels: Vec<_> =
            unknown.iter().map(|(who, noted)| (who.as_str(), noted.count, noted.first.as_str())).collect();
        assert_eq!(labels, [("Name <>", 1, "r 3"), ("a@b", 2, "r 1"), ("nobody", 1, "r 4")]);
    }
}
