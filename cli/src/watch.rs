//! Run after run, through outages of either side, until somebody ends it.

use std::time::Duration;

use blackwater_pipeline::{Pipeline, Report};
use chrono::Utc;
use tokio::time::Instant;

use crate::{Format, Signals, failure, print, progress, text};

/// The wait after a first failure; it doubles with each, up to the usual one.
const AT_FIRST: Duration = Duration::from_secs(1);

/// Runs every so often. A signal ends it when the run under way is done; a second one at once.
pub(crate) async fn run(pipeline: &Pipeline, every: Duration, format: Format) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut failures = 0;
    if let Format::Text = format {
        print(&format!("watching {}, every {} s; what changes is told\n", pipeline.name, every.as_secs()))?;
    }
    loop {
        let began = Instant::now();
        let work = pipeline.run(|report| tell(&report, format));
        tokio::pin!(work);
        let (done, ends) = tokio::select! {
            done = &mut work => (done, false),
            signal = signals.next() => {
                tracing::info!(?signal, "stopping after this run");
                tokio::select! {
                    done = &mut work => (done, true),
                    signal = signals.next() => anyhow::bail!(signal.interrupted()),
                }
            }
        };
        let wait = match done {
            Ok(()) => {
                failures = 0;
                every
            }
            Err(error) => {
                failures += 1;
                if let Format::Text = format {
                    progress::without(|| eprintln!("{}", now()));
                }
                failure(&error, format);
                every.min(AT_FIRST * 2_u32.saturating_pow(failures - 1))
            }
        };
        if ends {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(began + wait) => {}
            _ = signals.next() => return Ok(()),
        }
    }
}

/// Says what became of a batch.
fn tell(report: &Report, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => print(&format!("{}\n", serde_json::to_string(report)?)),
        Format::Text if report.load.batches.is_empty() && report.extract.notices.is_empty() => {
            tracing::info!("nothing has changed");
            Ok(())
        }
        Format::Text => print(&format!("{}\n{}", now(), text::run(report))),
    }
}

fn now() -> impl std::fmt::Display {
    Utc::now().format("%F %T UTC")
}

/// A time as `30s`, `5m` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || "write a number and s, m or h, as 30s, 5m or 1h".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(refuse()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| refuse())?;
    match number {
        0 => Err(refuse()),
        number => Ok(Duration::from_secs(u64::from(number) * unit)),
    }
}
