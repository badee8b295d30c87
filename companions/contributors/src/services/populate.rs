//! A believable organization for a demo: what happened in 120 days, always the same for the same seed.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::model::Model;

const DAYS: u64 = 120;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const REPOSITORIES: [&str; 3] = ["shop", "payments", "docs"];
const MEMBERS: [&str; 11] = ["ada", "bela", "chidi", "dana", "emre", "freya", "goran", "hana", "ines", "jonas", "kofi"];
const OUTSIDERS: [&str; 14] = [
    "lena-k", "mo-dev", "nils92", "olu", "priya-s", "quentin", "rosa-m", "samir", "tomoko", "ulrike", "vera-l",
    "wei-chen", "xavi", "zeynep",
];
const LABELS: [(&str, &str); 7] = [
    ("bug", "d73a4a"),
    ("documentation", "0075ca"),
    ("duplicate", "cfd3d7"),
    ("feature-request", "a2eeef"),
    ("good first issue", "7057ff"),
    ("pending-response", "fbca04"),
    ("question", "d876e3"),
];
const PARTS: [&str; 10] = [
    "the cart",
    "checkout",
    "the invoice page",
    "refunds",
    "the login form",
    "the price list",
    "search",
    "the CSV export",
    "the order history",
    "the API client",
];
const PROBLEMS: [&str; 6] = [
    "crashes on an empty list",
    "is slow with many items",
    "shows the wrong currency",
    "ignores the time zone",
    "loses its state after a reload",
    "returns 500 for long names",
];
const CHANGES: [&str; 6] = ["Fix", "Speed up", "Add tests for", "Simplify", "Translate", "Document the settings of"];
const ANSWERS: [&str; 6] = [
    "Thanks, I can reproduce this on the current version.",
    "Which version do you use? Please add the log output.",
    "It happens to us as well, since the last release.",
    "I have opened a pull request for this.",
    "This works as intended, see the documentation.",
    "The workaround helps, but a proper fix would be better.",
];

/// A small generator of numbers (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Some hours, in seconds: often few, up to this many.
    fn hours(&mut self, most: u64) -> u64 {
        let longest = 1 + self.below(most * HOUR);
        60 + self.below(longest)
    }
}

/// What happens to an issue or a pull request.
enum Act {
    Open { title: String, is_pull_request: bool },
    Comment { author: u64, text: &'static str },
    Mention { person: u64 },
    React,
    Label { by: u64, name: &'static str },
    Unlabel { by: u64, name: &'static str },
    Assign { by: u64 },
    Close { by: u64, reason: &'static str },
    Reopen { by: u64 },
    Draft,
    Ready,
    Commit,
    RequestReview { reviewer: u64 },
    Review { reviewer: u64, state: &'static str },
    LineComment { reviewer: u64 },
    Merge { by: u64 },
    Refer { to: usize },
}

struct Step {
    at: DateTime<Utc>,
    issue: usize,
    act: Act,
}

/// The steps of one issue, each some time after the one before.
struct Story {
    at: DateTime<Utc>,
    issue: usize,
    steps: Vec<Step>,
}

impl Story {
    fn after(&mut self, seconds: u64, act: Act) {
        self.at += TimeDelta::seconds(seconds.cast_signed());
        self.steps.push(Step { at: self.at, issue: self.issue, act });
    }
}

/// Who takes part.
struct Cast {
    members: Vec<u64>,
    outsiders: Vec<u64>,
    dependabot: u64,
    actions: u64,
}

impl Model {
    /// Adds three repositories, 25 people, eleven of them members, two bots, and what happened to this many issues and pull requests
    /// in the 120 days before now.
    pub fn populate(&mut self, seed: u64, issues: usize) {
        let end = self.now;
        self.now = end - TimeDelta::days(DAYS.cast_signed());
        let begin = self.now;
        let mut random = Random(seed);
        let repositories = REPOSITORIES.map(|name| self.add_repository(name));
        for repository in repositories {
            for (name, color) in LABELS {
                self.create_label(repository, name, color);
            }
            self.create_milestone(repository, "1.0");
        }
        let cast = Cast {
            members: MEMBERS.map(|login| self.add_person(login)).to_vec(),
            outsiders: OUTSIDERS.map(|login| self.add_person(login)).to_vec(),
            dependabot: self.add_bot("dependabot[bot]"),
            actions: self.add_bot("github-actions[bot]"),
        };
        for member in &cast.members {
            self.join(*member);
        }

        let mut authors = Vec::with_capacity(issues);
        let mut homes = Vec::with_capacity(issues);
        let mut steps = Vec::new();
        for issue in 0..issues {
            let at = begin + TimeDelta::seconds(random.below(DAYS * DAY).cast_signed());
            let mut story = Story { at, issue, steps: Vec::new() };
            let is_pull_request = random.chance(40);
            homes.push(repositories[if random.chance(50) { 0 } else { 1 + random.below(2) as usize }]);
            authors.push(match is_pull_request {
                true => cast.tell_of_pull_request(&mut story, &mut random),
                false => cast.tell_of_issue(&mut story, &mut random),
            });
            if random.chance(15) {
                let to = random.below(issues as u64) as usize;
                story.steps.push(Step { at, issue, act: Act::Refer { to } });
            }
            steps.extend(story.steps);
        }
        steps.retain(|step| step.at <= end);
        steps.sort_by_key(|step| step.at);
        let mut numbers = vec![0; issues];
        for step in steps {
            self.now = step.at;
            self.play(step, &homes, &authors, &mut numbers);
        }
        self.now = end;
    }

    fn play(&mut self, step: Step, homes: &[u64], authors: &[u64], numbers: &mut [u64]) {
        let (repository, author, number) = (homes[step.issue], authors[step.issue], numbers[step.issue]);
        let label = |model: &Self, name: &str| model.repositories[&repository].label(name).map(|label| label.id);
        match step.act {
            Act::Open { title, is_pull_request } => {
                numbers[step.issue] = match is_pull_request {
                    true => self.open_pull_request(repository, author, &title),
                    false => self.open_issue(repository, author, &title),
                };
            }
            Act::Comment { author, text } => {
                self.comment(repository, number, author, text);
            }
            Act::Mention { person } => {
                for kind in ["mentioned", "subscribed"] {
                    self.event(repository, number, Some(person), kind, json!({}));
                }
            }
            Act::React => {
                let comment = self.issue(repository, number).comments().last().and_then(|comment| comment.id);
                self.react(repository, number, comment, "+1");
            }
            Act::Label { by, name } => {
                if let Some(label) = label(self, name) {
                    self.label(repository, number, by, label);
                }
            }
            Act::Unlabel { by, name } => {
                if let Some(label) = label(self, name) {
                    self.unlabel(repository, number, by, label);
                }
            }
            Act::Assign { by } => {
                self.assign(repository, number, by, by);
            }
            Act::Close { by, reason } => {
                self.close(repository, number, by, reason);
            }
            Act::Reopen { by } => {
                self.reopen(repository, number, by);
            }
            Act::Draft => {
                self.draft(repository, number, author);
            }
            Act::Ready => {
                self.ready(repository, number, author);
            }
            Act::Commit => {
                self.commit(repository, number, author, "Work on it");
            }
            Act::RequestReview { reviewer } => {
                self.request_review(repository, number, author, reviewer);
            }
            Act::Review { reviewer, state } => {
                self.review(repository, number, reviewer, state);
            }
            Act::LineComment { reviewer } => {
                self.line_comment(repository, number, reviewer, "Please give this a clearer name.");
            }
            Act::Merge { by } => {
                self.merge(repository, number, by);
            }
            Act::Refer { to } => {
                if numbers[to] > 0 && to != step.issue {
                    self.cross_reference(homes[to], numbers[to], repository, number);
                }
            }
        }
    }
}

impl Cast {
    /// An issue: somebody reports it, a member answers, others join, and most are closed. Its author.
    fn tell_of_issue(&self, story: &mut Story, random: &mut Random) -> u64 {
        let author = if random.chance(80) { random.pick(&self.outsiders) } else { random.pick(&self.members) };
        let member = random.pick(&self.members);
        let title = format!("{} {}", capitalized(random.pick(&PARTS)), random.pick(&PROBLEMS));
        story.after(0, Act::Open { title, is_pull_request: false });
        if random.chance(90) {
            let name = random.pick(&["bug", "bug", "feature-request", "question", "documentation"]);
            story.after(random.hours(48), Act::Label { by: member, name });
            story.after(random.hours(12), Act::Comment { author: member, text: random.pick(&ANSWERS) });
        }
        if random.chance(30) {
            story.after(1, Act::Assign { by: member });
        }
        for _ in 0..random.below(6) {
            let author = if random.chance(60) { random.pick(&self.outsiders) } else { author };
            story.after(random.hours(96), Act::Comment { author, text: random.pick(&ANSWERS) });
            if random.chance(30) {
                story.after(0, Act::Mention { person: member });
            }
            for _ in 0..random.below(4) {
                story.after(random.hours(24), Act::React);
            }
        }
        if random.chance(35) {
            let name = "pending-response";
            story.after(random.hours(48), Act::Comment { author: member, text: ANSWERS[1] });
            story.after(1, Act::Label { by: member, name });
            if random.chance(50) {
                story.after(14 * DAY, Act::Comment { author: self.actions, text: "Closed because nobody answered." });
                story.after(1, Act::Close { by: self.actions, reason: "not_planned" });
                return author;
            }
            story.after(random.hours(120), Act::Comment { author, text: ANSWERS[5] });
            story.after(random.hours(24), Act::Unlabel { by: member, name });
        }
        if random.chance(60) {
            let reason = if random.chance(80) { "completed" } else { "not_planned" };
            story.after(random.hours(14 * 24), Act::Close { by: member, reason });
            if random.chance(20) {
                story.after(random.hours(72), Act::Comment { author, text: ANSWERS[2] });
                story.after(random.hours(24), Act::Reopen { by: member });
            }
        }
        author
    }

    /// A pull request: commits, reviews, and most are merged. Its author.
    fn tell_of_pull_request(&self, story: &mut Story, random: &mut Random) -> u64 {
        let reviewer = random.pick(&self.members);
        if random.chance(20) {
            let title = format!("Bump library-{} to 2.{}", random.below(20), random.below(10));
            story.after(0, Act::Open { title, is_pull_request: true });
            story.after(0, Act::Commit);
            story.after(random.hours(72), Act::Review { reviewer, state: "approved" });
            story.after(60, Act::Merge { by: reviewer });
            return self.dependabot;
        }
        let author = if random.chance(60) { random.pick(&self.members) } else { random.pick(&self.outsiders) };
        let title = format!("{} {}", random.pick(&CHANGES), random.pick(&PARTS));
        let is_draft = random.chance(25);
        story.after(0, Act::Open { title, is_pull_request: true });
        if is_draft {
            story.after(0, Act::Draft);
        }
        for _ in 0..1 + random.below(4) {
            story.after(random.hours(12), Act::Commit);
        }
        if is_draft {
            story.after(random.hours(72), Act::Ready);
        }
        story.after(60, Act::RequestReview { reviewer });
        for _ in 0..random.below(3) {
            story.after(random.hours(48), Act::LineComment { reviewer });
            story.after(1, Act::Review { reviewer, state: random.pick(&["changes_requested", "commented"]) });
            story.after(random.hours(48), Act::Comment { author, text: "Done." });
            story.after(60, Act::Commit);
        }
        match random.below(10) {
            0 => story.after(random.hours(240), Act::Close { by: reviewer, reason: "" }),
            1 | 2 => {}
            _ => {
                story.after(random.hours(48), Act::Review { reviewer, state: "approved" });
                story.after(random.hours(12), Act::Merge { by: reviewer });
            }
        }
        author
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}
