//! A line on stderr for each call that takes time, while somebody watches. Nobody watches: nothing is drawn.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, value::RawValue};
use wharf_api::ProgressRow;
use wharf_client::{Client, ClientFailure};
use wharf_model::UnitName;

/// The lines of all calls of one verb.
pub(crate) struct Progress {
    lines: Option<MultiProgress>,
}

impl Progress {
    /// Drawn where a person looks at stderr.
    pub(crate) fn watched() -> Self {
        Self { lines: is_watched().then(MultiProgress::new) }
    }

    /// Never drawn.
    pub(crate) fn silent() -> Self {
        Self { lines: None }
    }

    /// Writes something while the lines are out of the way.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.lines {
            Some(lines) => lines.suspend(write),
            None => write(),
        }
    }

    /// Takes all lines away.
    pub(crate) fn clear(&self) {
        if let Some(lines) = &self.lines {
            // Where stderr is gone there is nothing to clear.
            let _ = lines.clear();
        }
    }

    /// Calls a method; what it says on its way is drawn.
    pub(crate) async fn call(
        &self,
        client: &Client,
        method: &str,
        name: &UnitName,
        params: Value,
    ) -> Result<Box<RawValue>, ClientFailure> {
        let Some(lines) = &self.lines else {
            return client.raw(method, params).await;
        };
        let verb = method.rsplit('.').next().unwrap_or(method);
        let line = Line::new(lines.add(ProgressBar::new_spinner()), format!("{verb} {name}"));
        let result = client
            .streaming(method, params, |said, params| {
                if said == "service.progress"
                    && let Ok(row) = serde_json::from_value::<ProgressRow>(params)
                {
                    line.show(&row);
                }
            })
            .await;
        line.bar.finish_and_clear();
        result
    }
}

/// A person looks at stderr, and it can move its cursor.
fn is_watched() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

struct Line {
    bar: ProgressBar,
    is_bar: Cell<bool>,
}

impl Line {
    fn new(bar: ProgressBar, what: String) -> Self {
        bar.set_style(style("{spinner} {prefix}: {msg} ({elapsed})"));
        bar.set_prefix(what);
        bar.set_message("asked for");
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, is_bar: Cell::new(false) }
    }

    fn show(&self, row: &ProgressRow) {
        self.bar.set_message(row.stage.clone());
        let total = row.total.filter(|total| *total > 0);
        if total.is_some() != self.is_bar.get() {
            self.is_bar.set(total.is_some());
            // Steps are few; a number this large counts bytes.
            let template = match total {
                Some(10_000..) => "{spinner} {prefix}: {msg} [{bar:24}] {bytes}/{total_bytes}",
                Some(_) => "{spinner} {prefix}: {msg} [{bar:24}] {pos}/{len}",
                None => "{spinner} {prefix}: {msg} ({elapsed})",
            };
            self.bar.set_style(style(template));
        }
        if let Some(total) = total {
            self.bar.set_length(total);
            self.bar.set_position(row.done.unwrap_or(0));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_read() {
        for (total, done) in [(None, None), (Some(20_000), Some(7)), (Some(3), None)] {
            let line = Line::new(ProgressBar::hidden(), "install redis".into());
            let name: UnitName = "redis".parse().unwrap();
            line.show(&ProgressRow { name, stage: "downloading".into(), done, total });
            assert_eq!(line.bar.message(), "downloading");
            assert_eq!(line.bar.length(), total);
        }
    }
}
