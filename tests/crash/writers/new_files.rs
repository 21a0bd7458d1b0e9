//! Commands that make a new file, which may replace one.

use std::path::Path;
use std::sync::Arc;

use vhdkit::diff::{BaseCheck, Chain, Compression, SquashOptions, squash};
use vhdkit::files::{
    ApplyOptions, Format, InPlace, NewImage, Output, apply_in_place, apply_to_child,
    apply_to_clone, apply_to_new, open_diff, set_stamp,
};
use vhdkit::image::{CopyOptions, Image as _, content_digest, copy};
use vhdkit::parallel::Work;
use vhdkit::progress::Silent;
use vhdkit::storage::{AtomicFile, Audience, Overwrite};
use vhdkit::{Error, Result};

use super::{LARGER, SIZE, data, files, monday, pair, tuesday};
use crate::explore::{Outcome, Writer};
use crate::ground::{
    Disk, NewFileJudge, WORKERS, Whole, apply, apply_options, chain, diff, fill, holds, make,
    new_options, open,
};
use crate::recorder::Files;

/// A writer of a new file, which may replace one.
pub(super) fn new_file(
    name: &str,
    file: &'static str,
    before: Files,
    run: impl Fn(&Path, Overwrite) -> Result<()> + Send + Sync + Clone + 'static,
    whole: impl Fn(&Path) -> Whole + Send + Sync + Clone + 'static,
) -> [Writer; 2] {
    let writer = |name: String, before: Files, overwrite| {
        let again = run.clone();
        let judge = NewFileJudge {
            name: file,
            whole: Box::new(whole.clone()),
            before: before.clone(),
            again: Box::new(move |at| again(at, overwrite)),
        };
        let run = run.clone();
        Writer {
            name,
            before,
            run: Box::new(move |at| run(at, overwrite)),
            judge: Box::new(move |ground| judge.judge(ground)),
            done: Outcome::New,
            verifies: false,
            clones: false,
        }
    };
    let mut replaced = before.clone();
    replaced.insert(file.to_owned(), Arc::new(data(200, 3000)));
    [
        writer(name.to_owned(), before, Overwrite::No),
        writer(format!("{name}, replacing"), replaced, Overwrite::Yes),
    ]
}

/// From a stamped base on a file system with clones.
fn as_a_clone(format: Format) -> [Writer; 2] {
    new_file(
        &format!("apply to a clone: {format}"),
        "new",
        pair(format, &monday(), &tuesday(SIZE)),
        move |at, overwrite| {
            let output = Output {
                path: &at.join("new"),
                format,
                overwrite,
                dense: false,
                made_from: &Audience::default(),
            };
            let chain = chain(at, "diff")?;
            let base = open(&at.join("base"))?;
            let options = ApplyOptions {
                check: BaseCheck::Stamped,
                ..apply_options()
            };
            let digest = content_digest(&base, &WORKERS, &Silent)?;
            let stamped = set_stamp(&base, digest)?;
            // To be stamped changes the file.
            drop(base);
            let base = open(&at.join("base"))?;
            if stamped {
                let done = apply_to_clone(&base, &chain, output, options)?;
                done.map(drop)
                    .ok_or_else(|| Error::unsupported("there was no clone"))
            } else {
                apply_to_new(&base, &chain, output, options).map(drop)
            }
        },
        |path| holds(path, &tuesday(SIZE)),
    )
}

pub(super) fn all() -> Vec<Writer> {
    let whole = |disk: Disk| move |path: &Path| holds(path, &disk);
    let mut writers = Vec::new();
    for format in [Format::Raw, Format::Fixed, Format::Dynamic] {
        writers.extend(new_file(
            &format!("apply to new: {format}"),
            "new",
            pair(Format::Fixed, &monday(), &tuesday(LARGER)),
            move |at, overwrite| {
                let output = Output {
                    path: &at.join("new"),
                    format,
                    overwrite,
                    dense: false,
                    made_from: &Audience::default(),
                };
                let base = open(&at.join("base"))?;
                apply_to_new(&base, &chain(at, "diff")?, output, apply_options()).map(drop)
            },
            whole(tuesday(LARGER)),
        ));
        writers.extend(as_a_clone(format).map(|writer| Writer {
            clones: true,
            ..writer
        }));
        writers.extend(new_file(
            &format!("create: {format}"),
            "new",
            Files::new(),
            move |at, overwrite| {
                let mut options = new_options(format, SIZE as u64);
                options.overwrite = overwrite;
                fill(&at.join("new"), &options, &vec![0; SIZE])
            },
            whole(vec![0; SIZE]),
        ));
        writers.extend(new_file(
            &format!("convert: to {format}"),
            "new",
            pair(Format::Dynamic, &monday(), &monday()),
            move |at, overwrite| {
                let source = open(&at.join("base"))?;
                let mut options = new_options(format, source.virtual_size());
                options.overwrite = overwrite;
                let mut new = NewImage::create(at.join("new"), &options)?;
                let copying = CopyOptions {
                    work: Work::new(&WORKERS, &Silent),
                    digest: false,
                };
                copy(&source, new.image_mut(), copying)?;
                source.check_unchanged()?;
                new.publish()
            },
            whole(monday()),
        ));
    }
    writers.extend(new_file(
        "apply to child",
        "new",
        pair(Format::Dynamic, &monday(), &tuesday(SIZE)),
        |at, overwrite| {
            let output = Output {
                path: &at.join("new"),
                format: Format::Differencing,
                overwrite,
                dense: false,
                made_from: &Audience::default(),
            };
            let base = Arc::new(open(&at.join("base"))?);
            apply_to_child(base.into(), chain(at, "diff")?, output, apply_options()).map(drop)
        },
        whole(tuesday(SIZE)),
    ));
    let mut two = pair(Format::Fixed, &monday(), &tuesday(SIZE));
    two.extend(files(|at| {
        make(&at.join("target"), Format::Raw, &tuesday(SIZE), None)
    }));
    two.remove("diff");
    writers.extend(new_file(
        "diff",
        "diff",
        two,
        |at, overwrite| {
            diff(
                &at.join("base"),
                &at.join("target"),
                &at.join("diff"),
                overwrite,
            )
        },
        |path| {
            let folder = path.parent().unwrap();
            apply(folder, InPlace::default(), apply_options()).map_err(|e| e.to_string())?;
            holds(&folder.join("base"), &tuesday(SIZE))
        },
    ));
    writers.extend(squashes());
    writers
}

fn squashes() -> [Writer; 2] {
    let [first, second] = [tuesday(SIZE), tuesday(LARGER)];
    let mut before = pair(Format::Raw, &monday(), &first);
    before.extend(
        pair(Format::Raw, &first, &second)
            .remove("diff")
            .map(|diff| ("diff-2".to_owned(), diff)),
    );
    new_file(
        "squash",
        "new",
        before,
        |at, overwrite| {
            let diffs = ["diff", "diff-2"].map(|name| open_diff(&at.join(name), &Silent));
            let chain = Chain::new(diffs.into_iter().collect::<Result<_>>()?)?;
            let file = AtomicFile::begin(at.join("new"), overwrite, Audience::default())?;
            let options = SquashOptions {
                work: Work::new(&WORKERS, &Silent),
                compression: Compression::default(),
            };
            let _squashed = squash(&chain, file.file().appender(), at.join("new"), options)?;
            file.publish(overwrite)
        },
        move |path| {
            let folder = path.parent().unwrap();
            let base = folder.join("base");
            let applied = chain(folder, "new").and_then(|chain| {
                apply_in_place(&base, chain, InPlace::default(), apply_options())
            });
            applied.map_err(|e| e.to_string())?;
            holds(&base, &second)
        },
    )
}
