//! `tokenwarden simulate`: generates labelled traffic from a seed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::failure::Failure;
use super::terminal::progress_bar;
use crate::lab::simulate::{Crowd, Settings, Simulation};

/// Generate traffic with thefts, and a separate file of labels. The same seed gives the same bytes on every machine.
/// docs/simulator.md describes the traffic.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Amount of traffic.
    #[arg(long, value_enum, default_value = "afternoon")]
    size: Size,
    /// Seed of people and thefts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// First day (UTC), in the years 1971 to 2198.
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2026-09-26")]
    start: Date,
    /// Folder for events.ndjson and labels.ndjson. With -, events go to standard output, and labels are not written.
    #[arg(long, value_name = "DIR|-")]
    out: PathBuf,
    /// Compress the events.
    #[arg(long, value_enum)]
    compress: Option<Compression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Size {
    /// 10 days, tens of thousands of events.
    Afternoon,
    /// 90 days, about 6,200 grants, keys and clients, several million events.
    Quarter,
    /// 10 million tokens with simple behaviour, 20 million events.
    Huge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    Gzip,
    Zstd,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let start = TimeZone::UTC.to_timestamp(arguments.start.at(0, 0, 0, 0)).map(jiff::Timestamp::as_millisecond);
    let start = match start {
        Ok(start) if (1_971..=2_198).contains(&arguments.start.year()) => start,
        _ => return Err(Failure::Usage("--start must be in the years 1971 to 2198".to_owned())),
    };
    let mut outputs = Outputs::create(&arguments.out, arguments.compress)?;
    match arguments.size {
        Size::Huge => write_crowd(Crowd::new(arguments.seed, start, Crowd::HUGE), &mut outputs)?,
        Size::Quarter => write_story(Simulation::new(Settings::quarter(arguments.seed, start)), &mut outputs)?,
        Size::Afternoon => write_story(Simulation::new(Settings::afternoon(arguments.seed, start)), &mut outputs)?,
    }
    outputs.finish()
}

fn write_story(mut story: Simulation, outputs: &mut Outputs) -> Result<(), Failure> {
    let bar = progress_bar(u64::from(story.progress().0), "{bar:40} {human_pos} of {human_len} days {eta}");
    let mut events = Vec::new();
    while story.next_day(&mut events) {
        outputs.write(&events, &story.take_labels())?;
        events.clear();
        bar.set_position(u64::from(story.progress().1));
    }
    bar.finish_and_clear();
    Ok(())
}

fn write_crowd(mut crowd: Crowd, outputs: &mut Outputs) -> Result<(), Failure> {
    let bar = progress_bar(crowd.events(), "{bar:40} {human_pos} of {human_len} events {eta}");
    let mut events = Vec::new();
    while crowd.next_events(&mut events) {
        outputs.write(&events, &[])?;
        events.clear();
        bar.set_position(crowd.written());
    }
    bar.finish_and_clear();
    Ok(())
}

/// Outputs for events and labels.
struct Outputs {
    events: Encoder,
    events_name: String,
    labels: Option<(BufWriter<File>, String)>,
}

enum Encoder {
    Plain(Box<dyn Write>),
    Gzip(flate2::write::GzEncoder<Box<dyn Write>>),
    Zstd(zstd::Encoder<'static, Box<dyn Write>>),
}

impl Outputs {
    fn create(out: &Path, compression: Option<Compression>) -> Result<Self, Failure> {
        let (sink, events_name, labels): (Box<dyn Write>, _, _) = if out.as_os_str() == "-" {
            (Box::new(BufWriter::new(std::io::stdout())), "the events".to_owned(), None)
        } else {
            let made = std::fs::create_dir_all(out);
            made.map_err(|error| Failure::output(&out.display().to_string(), &error))?;
            let ending = match compression {
                None => "",
                Some(Compression::Gzip) => ".gz",
                Some(Compression::Zstd) => ".zst",
            };
            let (events, events_name) = create(&out.join(format!("events.ndjson{ending}")))?;
            (Box::new(events), events_name, Some(create(&out.join("labels.ndjson"))?))
        };
        let events = match compression {
            None => Encoder::Plain(sink),
            Some(Compression::Gzip) => {
                Encoder::Gzip(flate2::write::GzEncoder::new(sink, flate2::Compression::default()))
            }
            Some(Compression::Zstd) => {
                Encoder::Zstd(zstd::Encoder::new(sink, 3).map_err(|error| Failure::output(&events_name, &error))?)
            }
        };
        Ok(Self { events, events_name, labels })
    }

    fn write(&mut self, events: &[u8], labels: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.events {
            Encoder::Plain(out) => out.write_all(events),
            Encoder::Gzip(out) => out.write_all(events),
            Encoder::Zstd(out) => out.write_all(events),
        };
        written.map_err(|error| Failure::output(&self.events_name, &error))?;
        if let Some((out, name)) = &mut self.labels {
            out.write_all(labels).map_err(|error| Failure::output(name, &error))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        let flushed = match self.events {
            Encoder::Plain(mut out) => out.flush(),
            Encoder::Gzip(out) => out.finish().and_then(|mut out| out.flush()),
            Encoder::Zstd(out) => out.finish().and_then(|mut out| out.flush()),
        };
        flushed.map_err(|error| Failure::output(&self.events_name, &error))?;
        if let Some((mut out, name)) = self.labels {
            out.flush().map_err(|error| Failure::output(&name, &error))?;
        }
        Ok(())
    }
}

fn create(path: &Path) -> Result<(BufWriter<File>, String), Failure> {
    let name = path.display().to_string();
    match File::create(path) {
        Ok(file) => Ok((BufWriter::new(file), name)),
        Err(error) => Err(Failure::output(&name, &error)),
    }
}
