//! Nanoseconds per pair, in interleaved rounds.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use peers::workloads::{Goal, Workload};
use serde::Serialize;

use crate::{
    allocators::{SPANDREL, SYSTEM},
    cli::Plan,
    profile::Profile,
    stats::Summary,
    workers::{self, Length, Twin, Workers},
};

/// One line of the tables: a workload under a profile.
#[derive(Debug, Serialize)]
pub struct Times {
    /// The build.
    pub profile: Profile,
    /// The workload's name.
    pub workload: &'static str,
    /// The harness alone.
    pub harness: Summary,
    /// Every allocator of the plan, harness included.
    pub allocators: Vec<(&'static str, Summary)>,
    /// Spandrel against the best of the others, where both ran.
    pub ratio: Option<Ratio>,
}

/// How many times faster than the best of the others Spandrel is.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// The best of the others.
    pub best: &'static str,
    /// The median over the rounds of the ratio in each round, harness included on both sides: a
    /// round is short enough for the machine to be equally busy for both.
    pub ratio: f64,
    /// Of the medians, harness subtracted on both sides; absent where Spandrel drowns in the
    /// harness.
    pub net: Option<f64>,
    /// What it should be.
    pub goal: Option<f64>,
}

/// The style of every bar of the driver.
pub fn bar(steps: usize, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg:<28} {eta:>4}")
        .expect("the template is valid");
    ProgressBar::new(steps as u64).with_style(style).with_prefix(what.to_owned())
}

/// Runs everything the plan names.
pub fn measure(plan: &Plan, workers: &Workers) -> Result<Vec<Times>> {
    // The harness runs among the allocators, as one more of them.
    let mut runs: Vec<_> = plan.allocators.iter().map(|a| (*a, Twin::Full)).collect();
    runs.push((&SYSTEM, Twin::Empty));

    let lines: Vec<(Profile, &Workload)> =
        plan.profiles.iter().flat_map(|&p| plan.workloads.iter().map(move |&w| (p, w))).collect();
    let mut samples = vec![vec![Vec::new(); runs.len()]; lines.len()];

    let bar = bar(plan.repeat as usize * lines.len() * runs.len(), "timing");
    for round in 0..plan.repeat as usize {
        for (line, &(profile, workload)) in lines.iter().enumerate() {
            // Nobody always runs first.
            for i in 0..runs.len() {
                let who = (i + round) % runs.len();
                let (allocator, twin) = runs[who];
                bar.set_message(format!("{} {}", allocator.name, workload.name));
                let path = workers.path(profile, allocator);
                let outcome = workers::run(path, workload, twin, Length::Millis(plan.millis))?;
                samples[line][who].push(outcome.nanos_per_pair());
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();

    let times = lines.into_iter().zip(samples);
    Ok(times
        .map(|((profile, workload), samples)| {
            let (harness, allocators) = samples.split_last().expect("the harness ran");
            let harness = Summary::of(harness.clone());
            let names = plan.allocators.iter().map(|a| a.name);
            let samples: Vec<_> = names.zip(allocators).collect();
            Times {
                profile,
                workload: workload.name,
                harness,
                ratio: ratio(&samples, harness, goal(workload.goal, profile)),
                allocators: samples
                    .into_iter()
                    .map(|(name, samples)| (name, Summary::of(samples.clone())))
                    .collect(),
            }
        })
        .collect())
}

fn goal(goal: Option<Goal>, profile: Profile) -> Option<f64> {
    goal.map(|goal| match profile {
        Profile::Fat => goal.fat,
        Profile::Release => goal.release,
    })
}

/// Each name's samples are in the order of the rounds.
fn ratio(
    samples: &[(&'static str, &Vec<f64>)],
    harness: Summary,
    goal: Option<f64>,
) -> Option<Ratio> {
    let median = |samples: &Vec<f64>| Summary::of(samples.clone()).median;
    let is_ours = |name: &str| name == SPANDREL.name;
    let ours = samples.iter().find(|(n, _)| is_ours(n))?.1;
    let (best, theirs) = samples
        .iter()
        .filter(|(n, _)| !is_ours(n))
        .min_by(|a, b| median(a.1).total_cmp(&median(b.1)))?;
    let rounds = theirs.iter().zip(ours).map(|(t, o)| t / o).collect();
    let ours_net = median(ours) - harness.median;
    let theirs_net = median(theirs) - harness.median;
    Some(Ratio {
        best,
        ratio: median(&rounds),
        net: (ours_net > 0.0).then(|| theirs_net / ours_net),
        goal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_over_the_best_of_the_others() {
        let harness = Summary::of(vec![1.0]);
        let (ours, a, b) = (vec![2.0, 4.0, 2.0], vec![6.0; 3], vec![5.0, 10.0, 5.0]);
        let all = [("spandrel", &ours), ("a", &a), ("b", &b)];
        let r = ratio(&all, harness, Some(2.5)).unwrap();
        assert_eq!((r.best, r.ratio, r.net), ("b", 2.5, Some(4.0)));
        assert!(ratio(&all[1..], harness, None).is_none());
        assert!(ratio(&all[..1], harness, None).is_none());
        let drowned = Summary::of(vec![2.0]);
        assert_eq!(ratio(&all, drowned, None).unwrap().net, None);
    }
}
