//! A time as people say it: `5m` ago, or a moment.

use jiff::{Timestamp, civil, tz::TimeZone};

/// A time as `service.logs` takes it: seconds since 1970, or negative, seconds before now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct When(pub f64);

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        ago(text).or_else(|| moment(text)).map(Self).ok_or_else(|| {
            "it is a time ago (30s, 5m, 2h, 1d12h) or a moment (2026-11-21T08:00:00Z, 2026-11-21 08:00, 08:00)".into()
        })
    }
}

/// `1h30m`: numbers, each with its unit.
fn ago(text: &str) -> Option<f64> {
    let (mut seconds, mut rest) = (0.0, text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let word = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(word);
        let unit_s = match unit {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            "w" => 7.0 * 86400.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit_s;
        rest = behind;
    }
    // Zero would be 1970.
    (seconds > 0.0).then_some(-seconds)
}

/// RFC 3339; without a zone it is this machine's; a time of day is today's.
fn moment(text: &str) -> Option<f64> {
    let here = TimeZone::system();
    let local = |at: civil::DateTime| here.to_timestamp(at).ok();
    let time_of_day = || {
        let time: civil::Time = text.parse().ok()?;
        local(Timestamp::now().to_zoned(here.clone()).date().to_datetime(time))
    };
    let at = text.parse::<Timestamp>().ok().or_else(|| local(text.parse().ok()?)).or_else(time_of_day)?;
    Some(at.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_as_people_say_it() {
        let said = |text: &str| text.parse::<When>().map(|when| when.0);
        assert_eq!(said("5m"), Ok(-300.0));
        assert_eq!(said("1d12h"), Ok(-129_600.0));
        assert_eq!(said("1.5h"), Ok(-5400.0));
        assert_eq!(said("2026-11-21T08:00:00Z"), Ok(1_795_248_000.0));
        assert_eq!(said("2026-11-21T09:00:00+01:00"), Ok(1_795_248_000.0));
        assert!(said("2026-11-21 08:00").is_ok_and(|at| (at - 1_795_248_000.0).abs() < 90_000.0));
        assert!(said("08:00").is_ok_and(|at| at > 1_700_000_000.0));
        for wrong in ["", "5", "m", "5 m", "5y", "yesterday", "0s", "-5m"] {
            assert!(said(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
