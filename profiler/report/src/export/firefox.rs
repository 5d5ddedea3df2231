//! The Firefox Profiler's processed profile: a thread for each configuration, whose samples weigh what their stacks
//! take.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use fxprof_processed_profile::{
    CategoryColor, CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, Profile, SamplingInterval, Timestamp,
};
use serde_json::Value;

use super::no_form;
use crate::result::RunResult;
use virtax_analysis::stacks::Weighted;
use virtax_model::error::Result;

/// Colours for layers, in turn: the profiler has no others.
const COLOURS: [CategoryColor; 8] = [
    CategoryColor::Blue,
    CategoryColor::Green,
    CategoryColor::Orange,
    CategoryColor::Purple,
    CategoryColor::Red,
    CategoryColor::Yellow,
    CategoryColor::LightBlue,
    CategoryColor::Brown,
];

/// The file. A sample's weight is ns per operation, rounded; one of the profiler's milliseconds is a microsecond.
///
/// # Errors
/// If it has no JSON form.
pub fn file<'a>(
    result: &RunResult,
    of_configurations: impl Iterator<Item = (&'a str, &'a [Weighted])>,
) -> Result<Value> {
    let name = format!("virtax {} {}: one sample is 1 ns per operation", result.workload.name, result.run_id);
    let began = UNIX_EPOCH + Duration::from_secs(result.started_unix_s);
    let mut profile = Profile::new(&name, began.into(), SamplingInterval::from_millis(1));
    let start = Timestamp::from_millis_since_reference(0.0);
    let mut layers: HashMap<&str, CategoryHandle> = HashMap::new();
    for ((number, (configuration, stacks)), is_first) in (1u32..).zip(of_configurations).zip((0..).map(|n| n == 0)) {
        let process = profile.add_process(configuration, number, start);
        let thread = profile.add_thread(process, number, start, true);
        profile.set_thread_name(thread, configuration);
        if is_first {
            profile.add_initial_visible_thread(thread);
        }
        let mut at_ns = 0.0;
        for stack in stacks.iter().filter(|stack| stack.ns >= 0.5) {
            let mut frames = Vec::with_capacity(stack.frames.len());
            for frame in &stack.frames {
                let category = match &frame.layer {
                    Some(layer) => {
                        let colour = COLOURS[layers.len() % COLOURS.len()];
                        *layers.entry(layer.as_str()).or_insert_with(|| profile.add_category(layer, colour))
                    }
                    None => CategoryHandle::OTHER,
                };
                let label = Frame::Label(profile.intern_string(&frame.name));
                frames.push(FrameInfo { frame: label, category_pair: category.into(), flags: FrameFlags::empty() });
            }
            let stack_frames = profile.intern_stack_frames(thread, frames.into_iter());
            let weight = stack.ns.round().min(f64::from(i32::MAX)) as i32;
            let at = Timestamp::from_millis_since_reference(at_ns / 1000.0);
            profile.add_sample(thread, at, stack_frames, CpuDelta::ZERO, weight);
            at_ns += stack.ns;
        }
    }
    serde_json::to_value(&profile).map_err(|error| no_form(&error))
}
