//! Git over HTTP: what refs a repository has, and packs of what they lead to.
//! <https://git-scm.com/docs/protocol-v2>

pub(crate) mod bundle;
pub(crate) mod pack;
mod packets;
pub(crate) mod pointers;

use std::collections::BTreeSet;

use blackwater_base::deadline::Deadline;
use blackwater_http::header::{CONTENT_TYPE, HeaderValue};
use blackwater_http::{Error as HttpError, Http, Method, RequestBuilder, Stream, Url};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use packets::{Packet, Packets};

/// A ref of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ref {
    /// Its name, as `refs/heads/main`; or `HEAD`.
    pub name: String,
    /// The hash of what it names.
    pub hash: String,
    /// The hash of what an annotated tag names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peeled: Option<String>,
    /// The ref that `HEAD` stands for; it has none if it is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Where the repositories are.
#[derive(Debug)]
pub(crate) struct Git {
    http: Http,
    origin: Url,
    token: SecretString,
}

impl Git {
    pub(crate) fn new(http: &Http, origin: &str, token: &SecretString) -> Result<Self, HttpError> {
        let origin = format!("{}/", origin.trim_end_matches('/'));
        let origin = Url::parse(&origin).map_err(|error| HttpError::Client(format!("{origin}: {error}")))?;
        Ok(Self { http: http.clone(), origin, token: token.clone() })
    }

    /// The repository of this name, as `acme/shop`, or where it was moved to.
    pub(crate) async fn connect(&self, name: &str, deadline: Deadline) -> Result<Remote<'_>, Fault> {
        const DISCOVERY: &str = "info/refs";
        let mut place = self.at(&format!("{name}.git/"))?;
        for _ in 0..3 {
            let mut url = joined(&place, DISCOVERY)?;
            url.set_query(Some("service=git-upload-pack"));
            match self.http.open(self.request(Method::GET, url), deadline).await {
                Ok(answer) => {
                    greeted(answer).await?;
                    return Ok(Remote { git: self, place, deadline });
                }
                // The token goes to no other host.
                Err(HttpError::Elsewhere { to, .. }) if to.0.origin() == self.origin.origin() => {
                    let path = to.0.path().strip_suffix(DISCOVERY).map(str::to_owned);
                    place = to.0;
                    place.set_query(None);
                    place.set_path(&path.ok_or_else(|| Fault::form("it was moved to where no repository is"))?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Fault::form("it leads from one place to another without an end"))
    }

    fn at(&self, path: &str) -> Result<Url, Fault> {
        joined(&self.origin, path)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url).header("git-protocol", "version=2");
        request.basic_auth("x-access-token", Some(self.token.expose_secret()))
    }
}

fn joined(place: &Url, path: &str) -> Result<Url, Fault> {
    place.join(path).map_err(|_| Fault::form("its address is none"))
}

/// Makes sure that the server speaks the protocol's second version, of hashes that are known here.
async fn greeted(answer: Stream) -> Result<(), Fault> {
    let mut packets = Packets::of(answer);
    let mut is_known = false;
    // The name of the service and a flush may come first, as of GitHub.
    let mut flushes = 0;
    while flushes < 2 {
        match packets.next().await? {
            Packet::Data(line) => match line.trim_ascii_end() {
                b"version 2" => (is_known, flushes) = (true, 1),
                b"object-format=sha256" => return Err(Fault::form("its hashes are SHA-256, which are not known here")),
                _ => {}
            },
            Packet::Flush => flushes += 1,
            Packet::Delimiter => {}
        }
    }
    match is_known {
        true => Ok(()),
        false => Err(Fault::form("its server does not know the second version of git's protocol")),
    }
}

/// A repository that can be asked.
#[derive(Debug)]
pub(crate) struct Remote<'g> {
    git: &'g Git,
    place: Url,
    deadline: Deadline,
}

impl Remote<'_> {
    /// Its refs whose names begin with one of these, in the order of their names; all, if none are given.
    pub(crate) async fn refs(&self, prefixes: &[String]) -> Result<Vec<Ref>, Fault> {
        let mut lines = vec!["peel\n".to_owned(), "symrefs\n".to_owned()];
        lines.extend(prefixes.iter().map(|prefix| format!("ref-prefix {prefix}\n")));
        let mut packets = self.ask("ls-refs", &lines).await?;
        let mut refs = Vec::new();
        while let Packet::Data(line) = packets.next().await? {
            let text = std::str::from_utf8(line.trim_ascii_end())
                .map_err(|_| Fault::form("the name of one of its refs is not UTF-8"))?;
            refs.extend(Ref::read(text)?);
        }
        refs.sort();
        Ok(refs)
    }

    /// A pack of what these hashes lead to, but for what those lead to that are had.
    pub(crate) async fn fetch(&self, wants: &BTreeSet<&str>, haves: &BTreeSet<&str>) -> Result<Pack, Fault> {
        let mut lines = vec!["ofs-delta\n".to_owned(), "no-progress\n".to_owned()];
        lines.extend(wants.iter().map(|hash| format!("want {hash}\n")));
        lines.extend(haves.iter().map(|hash| format!("have {hash}\n")));
        lines.push("done\n".into());
        let mut packets = self.ask("fetch", &lines).await?;
        loop {
            match packets.next().await? {
                Packet::Data(line) if line.as_ref() == b"packfile\n" => {
                    return Ok(Pack { packets });
                }
                Packet::Data(_) | Packet::Delimiter => {}
                Packet::Flush => return Err(Fault::form("its server sends no pack")),
            }
        }
    }

    async fn ask(&self, command: &str, lines: &[String]) -> Result<Packets, Fault> {
        let mut body = packets::line(&format!("command={command}\n"));
        body.extend(b"0001");
        for line in lines {
            body.extend(packets::line(line));
        }
        body.extend(b"0000");
        let request = self.git.request(Method::POST, joined(&self.place, "git-upload-pack")?);
        let request = request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-request"))
            .header("accept", "application/x-git-upload-pack-result")
            .body(body);
        Ok(Packets::of(self.git.http.open(request, self.deadline).await?))
    }

    /// A request for LFS objects of the repository.
    pub(crate) fn lfs(&self) -> Result<RequestBuilder, Fault> {
        Ok(self.git.request(Method::POST, joined(&self.place, "info/lfs/objects/batch")?))
    }
}

impl Ref {
    /// One line of the answer to `ls-refs`; `None` is a branch without a commit.
    fn read(line: &str) -> Result<Option<Self>, Fault> {
        let mut words = line.split(' ');
        let (Some(hash), Some(name)) = (words.next(), words.next()) else {
            return Err(Fault::form("its list of refs cannot be read"));
        };
        if hash == "unborn" {
            return Ok(None);
        }
        if hash.len() != 40 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Fault::form("its list of refs has a hash that is none"));
        }
        let mut found = Self { name: name.into(), hash: hash.into(), peeled: None, target: None };
        for word in words {
            match word.split_once(':') {
                Some(("peeled", hash)) => found.peeled = Some(hash.into()),
                Some(("symref-target", target)) => found.target = Some(target.into()),
                _ => {}
            }
        }
        Ok(Some(found))
    }
}

/// A pack as it comes.
pub(crate) struct Pack {
    packets: Packets,
}

impl Pack {
    /// Its next bytes; `None` when the server has said that this is all.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let Packet::Data(packet) = self.packets.next().await? else { return Ok(None) };
            match packet.first() {
                Some(1) => return Ok(Some(packet.slice(1..))),
                Some(3) => {
                    let why = String::from_utf8_lossy(&packet[1..]).trim().to_owned();
                    return Err(Fault::form(&format!("its server breaks off: {why}")));
                }
                // Progress, and signs of life.
                _ => {}
            }
        }
    }
}
