//! A progress bar on the terminal, for what takes longer than a second.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use blackwater_base::progress::TARGET;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// How long something takes before it gets a bar.
const PATIENCE: Duration = Duration::from_secs(1);

static SHOWN: OnceLock<Shown> = OnceLock::new();

/// The bar, and since when what it shows is under way.
struct Shown {
    bar: ProgressBar,
    now: Mutex<Option<(String, Instant)>>,
}

struct Progress;

/// Shows progress from now on: the layer that hears of it.
pub(crate) fn start<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    SHOWN.get_or_init(|| Shown { bar, now: Mutex::new(None) });
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            if let Some(shown) = SHOWN.get() {
                shown.tick();
            }
        }
    });
    Progress.with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
}

/// Does something with the terminal while no bar is there. What was under way is over.
pub(crate) fn without<T>(work: impl FnOnce() -> T) -> T {
    let Some(shown) = SHOWN.get() else { return work() };
    let mut now = shown.now.lock().unwrap_or_else(PoisonError::into_inner);
    *now = None;
    shown.hide();
    work()
}

impl Shown {
    fn tick(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.as_ref().is_some_and(|(_, since)| since.elapsed() > PATIENCE) {
            if self.bar.is_hidden() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            self.bar.tick();
        }
    }

    fn hide(&self) {
        if !self.bar.is_hidden() {
            self.bar.finish_and_clear();
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    fn hear(&self, what: &str, done: u64, of: u64) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.as_ref().is_none_or(|(known, _)| known != what) {
            self.hide();
            self.bar.reset();
            self.bar.set_message(what.to_owned());
            *now = Some((what.to_owned(), Instant::now()));
        }
        let style = match (done, of) {
            (0, 0) => "{spinner} {msg}, {elapsed}",
            (_, 0) => "{spinner} {msg}: {human_pos} rows, {elapsed}",
            _ => "{spinner} {msg} [{bar:30}] {human_pos} of {human_len} rows, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.bar.set_length(of);
        self.bar.set_position(done);
    }
}

impl<S: Subscriber> Layer<S> for Progress {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(shown) = SHOWN.get() else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        shown.hear(&fields.what, fields.done, fields.of);
    }
}

#[derive(Default)]
struct Fields {
    what: String,
    done: u64,
    of: u64,
}

impl Visit for Fields {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "what" {
            value.clone_into(&mut self.what);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "done" => self.done = value,
            "of" => self.of = value,
            _ => {}
        }
    }
}
