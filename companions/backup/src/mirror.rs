//! A git repository as bundles: one that is whole, and those that add to it.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::fault::Fault;
use crate::git::pack::Seal;
use crate::git::pointers::{Found, Pointers};
use crate::git::{Ref, Remote, bundle};
use crate::manifest::{Mirror, Object};
use crate::run::Run;

/// What was read of a repository.
pub(crate) struct Made {
    pub(crate) mirror: Mirror,
    /// The pointers in what is new.
    pub(crate) found: Found,
}

/// The refs of a repository that are to be kept: all, or all but those of pull requests, which are many, and keep the commits of forks.
pub(crate) async fn refs(config: &Config, remote: &Remote<'_>) -> Result<Vec<Ref>, Fault> {
    remote.refs(&if config.pull_refs { Vec::new() } else { all_but_pulls() }).await
}

/// What the names of all refs begin with but `refs/pull/`: a server can be told what to list, not what to leave out.
fn all_but_pulls() -> Vec<String> {
    const PULLS: &str = "refs/pull/";
    // <https://git-scm.com/docs/git-check-ref-format>
    let may_follow = |c: &char| !"~^:?*[\\".contains(*c);
    let beside = (5..PULLS.len()).flat_map(|end| {
        let (stem, next) = (&PULLS[..end], PULLS[end..].chars().next());
        ('!'..='~').filter(may_follow).filter(move |c| Some(*c) != next).map(move |c| format!("{stem}{c}"))
    });
    beside.chain(["HEAD".into()]).collect()
}

/// Brings a mirror up to date with these refs, by a bundle of what is new. `looks` is whether pointers are looked for.
pub(crate) async fn update(
    run: &Run<'_>,
    remote: &Remote<'_>,
    refs: Vec<Ref>,
    known: Option<&Mirror>,
    key: String,
    looks: bool,
) -> Result<Made, Fault> {
    // By the tips of the last backup, not by what the server still has: a tip that was forced away is in an earlier bundle.
    let haves: BTreeSet<_> = known.iter().flat_map(|known| &known.refs).map(|one| one.hash.as_str()).collect();
    let wants = new(&refs, known);
    let (mut bundles, mut found) = (known.map(|known| known.bundles.clone()).unwrap_or_default(), Found::default());
    if !wants.is_empty() {
        let (object, pointers) = stream(run, remote, &refs, &wants, &haves, key, looks).await?;
        bundles.push(object);
        found = pointers;
    }
    Ok(Made { mirror: Mirror { refs, bundles }, found })
}

/// The hashes that refs have and those of a mirror have not.
fn new<'r>(refs: &'r [Ref], known: Option<&Mirror>) -> BTreeSet<&'r str> {
    let had: BTreeSet<_> = known
        .iter()
        .flat_map(|known| &known.refs)
        .flat_map(|one| [Some(one.hash.as_str()), one.peeled.as_deref()])
        .flatten()
        .collect();
    refs.iter().map(|one| one.hash.as_str()).filter(|hash| !had.contains(hash)).collect()
}

/// Whether a mirror is to be read in full again with these refs: something is new, and it has many increments, or large ones.
pub(crate) fn is_worn(known: &Mirror, refs: &[Ref], full_every: u32) -> bool {
    let Some((full, increments)) = known.bundles.split_first() else { return false };
    if new(refs, Some(known)).is_empty() {
        return false;
    }
    increments.len() >= full_every as usize
        || increments.iter().map(|object| object.bytes).sum::<u64>() > full.bytes / 2
}

/// Sends a pack on to the bucket as it comes.
async fn stream(
    run: &Run<'_>,
    remote: &Remote<'_>,
    refs: &[Ref],
    wants: &BTreeSet<&str>,
    haves: &BTreeSet<&str>,
    key: String,
    looks: bool,
) -> Result<(Object, Found), Fault> {
    let _turn = run.uploads.acquire().await;
    let mut pack = remote.fetch(wants, haves).await?;
    let mut upload = run.account.store.upload(key);
    upload.write(bundle::header(haves, refs).as_bytes()).await?;
    let (mut seal, mut pointers) = (Seal::default(), looks.then(Pointers::new));
    let wrong = |why: &str| Fault::form(&format!("its pack cannot be kept: {why}"));
    while let Some(bytes) = pack.next().await? {
        seal.update(&bytes);
        if let Some(pointers) = &mut pointers {
            pointers.update(&bytes).map_err(wrong)?;
        }
        upload.write(&bytes).await?;
    }
    seal.end().map_err(wrong)?;
    let found = pointers.map(Pointers::end).transpose().map_err(wrong)?.unwrap_or_default();
    Ok((upload.finish().await?.into(), found))
}
