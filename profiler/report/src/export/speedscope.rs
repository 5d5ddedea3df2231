//! speedscope's file format: frames once, and stacks with their weights, one profile a configuration.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::result::RunResult;
use virtax_analysis::stacks::Weighted;

/// The file.
pub fn file<'a>(result: &RunResult, of_configurations: impl Iterator<Item = (&'a str, &'a [Weighted])>) -> Value {
    let (mut frames, mut numbers) = (Vec::new(), HashMap::new());
    let profiles: Vec<Value> = of_configurations
        .map(|(name, stacks)| {
            let (mut samples, mut weights) = (Vec::new(), Vec::new());
            for stack in stacks.iter().filter(|stack| stack.ns > 0.0) {
                let number = |frame: &'a str| {
                    *numbers.entry(frame).or_insert_with(|| {
                        frames.push(json!({ "name": frame }));
                        frames.len() - 1
                    })
                };
                samples.push(stack.frames.iter().map(|frame| frame.name.as_str()).map(number).collect::<Vec<usize>>());
                weights.push(stack.ns);
            }
            json!({
                "type": "sampled",
                "name": name,
                "unit": "nanoseconds",
                "startValue": 0.0,
                "endValue": weights.iter().sum::<f64>(),
                "samples": samples,
                "weights": weights,
            })
        })
        .collect();
    json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": format!("virtax {}", result.virtax_version),
        "name": format!("{} ({})", result.workload.name, result.run_id),
        "activeProfileIndex": 0,
        "shared": { "frames": frames },
        "profiles": profiles,
    })
}
