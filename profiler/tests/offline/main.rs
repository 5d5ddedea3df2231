//! What needs neither root nor a host: recorded inputs, pictures and tables as reviewed, the command line, input
//! that is bad.

mod bad_input;
mod command_line;
#[path = "../common/mod.rs"]
mod common;
mod docs;
mod exports;
mod formats;
mod fuzz;
mod golden;
mod golden_runs;
mod recorded_paths;
mod schema;
mod targets;

fn main() {
    common::harness::run(tests! {
        bad_input: arguments_are_refused_with_2_before_anything_happens, broken_and_hostile_files_are_refused_with_6, a_file_that_unpacks_without_end_is_refused, links_in_a_folder_are_not_followed, every_field_of_raw_files_may_hold_anything, every_field_of_a_result_may_hold_anything, damaged_files_never_panic;
        command_line: help_and_lists_are_as_reviewed, wrong_usage_ends_with_2_before_anything_happens, a_folder_without_a_run_and_broken_files_end_with_6, without_root_a_run_says_what_it_needs, every_command_has_a_manual_page_and_completions;
        docs: tables_are_those_of_the_points;
        exports: the_page_holds_all_and_asks_nobody, a_browser_shows_it, names_are_no_markup, a_spreadsheet_reads_every_stage, markdown_is_as_reviewed, metrics_keep_their_rules, stacks_for_speedscope_are_those_of_the_pictures, stacks_for_pprof_are_those_of_the_pictures, stacks_for_firefox_are_those_of_the_pictures, results_keep_to_the_published_schema, perfetto_shows_hand_overs, the_slowest_requests_are_as_reviewed, runs_are_compared_where_they_can_be, a_stage_is_shown_as_reviewed;
        formats: every_kernel_of_the_corpus_is_understood, a_wider_header_moves_the_fields, damaged_formats_never_panic_and_never_lead_outside_of_a_record;
        fuzz: nothing_from_outside_makes_a_parser_panic, nothing_from_outside_makes_another_parser_panic;
        golden: the_report_is_as_reviewed, the_report_of_file_operations_is_as_reviewed, a_disks_time_is_no_codes, stages_and_residual_sum_to_the_clients_latency, comparisons_are_antisymmetric, the_same_counts_give_the_same_result_and_it_survives_the_file, flame_graphs_are_as_wide_as_the_stages_and_say_what_they_are, json_on_standard_output_is_the_result, an_interrupted_run_reports_what_it_has, a_wish_that_was_not_reached_is_said, newer_and_broken_files_are_refused, losses_withhold_the_verdict, layers_sum_to_what_they_divide, layers_have_no_time_that_their_samples_have_not_seen, a_run_without_stacks_has_no_layers;
        golden_runs: golden_runs_are_made_into_the_same, every_recorded_run_is_small_and_has_its_purpose;
        recorded_paths: every_recorded_step_is_legal, the_ways_of_the_recorded_requests_and_responses, all_messages_of_a_recording_go_the_same_two_ways;
    });
}
