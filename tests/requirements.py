"""What the product promises, and which tests show it: the one list, kept true by tests/architecture.

A promise is ``done`` when its ``tests`` drive the real thing and pass; ``partial`` when they show some of it,
and ``lacks`` says what is missing; ``open`` until then. Each test named here carries
``@pytest.mark.requirement("ID")``. ``python -m tests.requirements --write`` renews the page docs/status.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

State: TypeAlias = Literal["done", "partial", "open"]
STATES: tuple[State, ...] = get_args(State)
STATUS = Path(__file__).parent.parent / "docs" / "status.md"
BEGIN, END = "<!-- written by tests/requirements.py -->\n", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One promise."""

    id: str
    title: str
    state: State = "open"
    tests: tuple[str, ...] = ()
    """Node paths, ``tests/unit/sdk/test_versions.py::test_name``."""
    lacks: str = ""
    """What is missing, when partial."""


STREAMED = (
    "test_raw_bytes_come_as_they_are_over_many_windows",
    "test_both_ways_at_once_without_an_end_in_sight",
    "test_a_slow_taker_slows_the_plugin",
    "test_a_stalled_stream_holds_up_no_other_call",
    "test_who_leaves_closes_the_generator",
)
STREAMED_OVER_HTTP = (
    "test_items_progress_and_the_end_come_as_lines",
    "test_both_ways_at_once_without_an_end_in_sight",
    "test_an_application_that_hangs_up_cancels_the_function",
)
STREAM_ATTACKS = (
    "test_an_item_out_of_order_is_a_breach_and_ends_the_call",
    "test_an_item_beyond_the_credit_is_a_breach_and_ends_the_call",
    "test_items_for_a_call_that_was_never_made_are_breaches_and_end_the_connection",
    "test_what_was_on_its_way_when_a_call_was_given_up_is_forgiven_as_far_as_its_credit",
    "test_a_lie_about_the_bytes_that_follow_ends_the_connection",
    "test_the_host_sends_no_more_than_the_plugin_takes",
    "test_a_stream_that_nobody_takes_costs_the_window_and_no_more",
)
BODIES = tuple(
    f"tests/{name}"
    for name in (
        "contract/test_bodies.py::test_bytes_go_and_come_as_they_are",
        "integration/test_raw_calls.py::test_a_body_is_an_argument_and_the_answer_is_what_the_function_returned",
        "security/test_framing.py::test_frames_do_not_depend_on_how_the_stream_was_cut",
        "security/test_bridge_bodies.py::test_raw_bytes_come_with_an_answer_and_go_with_a_call",
        "security/test_bridge_bodies.py::test_a_lie_about_the_bytes_of_an_answer_ends_the_connection",
        "security/test_bridge_bodies.py::test_bytes_that_are_announced_and_never_come_end_the_connection",
        "security/test_bridge_bodies.py::test_what_is_announced_costs_its_bound_and_no_more_however_often_it_is_sent",
    )
)

IDLE = (
    "test_who_is_not_called_for_a_minute_stands_still_and_goes_on_with_the_next_call",
    "test_a_call_that_enters_while_it_is_frozen_is_answered",
    "test_a_pause_outlasts_a_wake_that_nobody_waits_for_any_more",
    "test_a_new_configuration_wakes_who_sleeps_and_is_read_by_who_was_stopped",
    "test_an_event_wakes_a_subscriber_and_a_subscriber_is_not_stopped",
    "test_who_is_not_called_for_an_hour_is_stopped_and_still_listed",
    "test_many_callers_at_once_start_it_once",
    "test_a_call_that_comes_while_it_is_being_stopped_waits_for_the_next_start",
    "test_when_the_start_fails_each_caller_is_told_why",
    "test_an_operator_who_ends_it_ends_the_waiting_for_its_start",
    "test_what_rested_rests_on_in_the_next_host_and_a_call_starts_it",
    "test_a_release_on_probation_does_not_rest_and_one_that_sleeps_is_replaced",
)

REQUIREMENTS: tuple[Requirement, ...] = (
    # Plugin core
    Requirement(
        "CORE-1",
        "sandboxed execution",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_what_the_engine_put_in_force_is_what_was_asked_for",
            "tests/integration/test_docker_engine.py::test_a_container_that_is_not_as_asked_for_never_starts_and_is_removed",
            "tests/unit/host/test_sandboxes.py::test_a_sandbox_below_the_required_grade_never_runs_and_is_removed",
            "tests/e2e/test_demo.py::test_the_sandbox_in_force_is_closed",
            "tests/integration/test_kernel_readback.py::test_the_kernel_says_of_a_real_sandbox_what_was_asked_for",
        ),
    ),
    Requirement(
        "CORE-2",
        "permission-based security",
        "done",
        tests=(
            "tests/contract/test_host_calls.py::test_a_host_call_needs_its_permission_and_a_denial_wins",
            "tests/contract/test_host_calls_events.py::test_a_subscription_needs_a_grant_that_covers_its_pattern",
            "tests/unit/sdk/test_topics.py::test_a_grant_covers_a_pattern_when_it_names_all_that_the_pattern_names",
            "tests/integration/test_bridge_runtime.py::test_a_host_call_is_denied_then_done_and_recorded_under_the_operators_call",
            "tests/e2e/test_demo.py::test_a_refusal_is_on_record_and_tells_the_caller_nothing",
        ),
    ),
    Requirement(
        "CORE-3",
        "resource quotas",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_a_plugin_makes_no_more_processes_than_its_limit",
            "tests/integration/test_docker_engine.py::test_a_plugin_gets_no_more_of_the_processor_than_its_quota",
            "tests/integration/test_docker_engine.py::test_the_disk_in_memory_ends_where_its_limit_is",
            "tests/integration/test_docker_engine.py::test_a_plugin_reads_the_disk_no_faster_than_its_limit",
            "tests/integration/test_limits.py::test_its_share_of_the_processor_is_its_quota_within_five_percent",
            "tests/integration/test_limits.py::test_a_limit_ends_what_goes_beyond_it",
            "tests/integration/test_limits.py::test_nothing_can_be_written_but_memory",
            "tests/unit/host/test_storage.py::test_the_quota_counts_keys_and_values_to_the_byte",
            "tests/unit/host/test_storage.py::test_a_value_of_nothing_counts_what_its_row_takes",
        ),
    ),
    Requirement(
        "CORE-4",
        "hot loading",
        "done",
        tests=(
            "tests/integration/test_host_on_engine.py::test_plugins_have_users_of_their_own_and_calls_side_by_side",
            "tests/integration/test_host_on_engine.py::test_a_plugin_is_installed_approved_called_and_removed_without_a_trace",
            "tests/integration/test_upgrades_on_engine.py::test_real_releases_are_swapped_under_load_and_no_call_fails",
        ),
    ),
    Requirement(
        "CORE-5",
        "versions and dependencies",
        "partial",
        tests=(
            "tests/unit/sdk/test_resolution.py::test_it_finds_a_solution_exactly_when_there_is_one",
            "tests/unit/sdk/test_resolution.py::test_a_clash_names_both_requirements_and_what_leads_to_them",
        ),
        lacks="a lockfile of plugins, several versions side by side",
    ),
    Requirement(
        "CORE-6",
        "API bridge",
        "done",
        tests=(
            "tests/integration/test_bridge_runtime.py::test_calls_are_answered_and_what_is_wrong_with_them_is_told",
            "tests/integration/test_bridge_runtime.py::test_a_function_learns_that_nobody_waits_any_more",
            "tests/integration/test_bridge_runtime.py::test_a_function_that_takes_too_long_is_not_waited_for",
            "tests/security/test_bridge_abuse.py::test_a_plugin_that_asks_and_never_reads_is_cut_off_or_held_still",
            "tests/unit/host/test_calls.py::test_a_plugin_calls_another_and_both_are_on_record",
            *(f"tests/contract/test_streams.py::{name}" for name in STREAMED),
            *(f"tests/integration/test_streaming.py::{name}" for name in STREAMED_OVER_HTTP),
            *(f"tests/security/test_bridge_streams.py::{name}" for name in STREAM_ATTACKS),
            *BODIES,
        ),
    ),
    Requirement(
        "CORE-7",
        "event system",
        "done",
        tests=(
            "tests/contract/test_host_calls.py::test_a_topic_below_a_granted_one_may_be_published_and_one_beside_it_not",
            "tests/integration/test_host_on_engine.py::test_events_are_streamed_and_continued_where_a_reader_stopped",
            "tests/unit/sdk/test_topics.py::test_a_star_is_one_word_and_a_hash_any_number_and_neither_reaches_the_host",
            "tests/unit/host/test_bus.py::test_events_of_a_topic_come_in_order_one_at_a_time_and_topics_do_not_wait_for_each_other",
            "tests/unit/host/test_bus.py::test_a_full_queue_drops_the_oldest_and_the_next_event_tells_how_many",
            "tests/unit/host/test_bus.py::test_a_queue_that_blocks_makes_its_publisher_wait_and_then_refuses",
            "tests/unit/host/test_bus.py::test_a_durable_subscription_goes_on_over_instances_and_hosts_without_a_loss",
            "tests/unit/host/test_bus.py::test_retention_drops_the_oldest_and_a_reader_that_was_behind_is_told",
            "tests/contract/test_host_calls_events.py::test_a_plugin_is_sent_what_its_manifest_subscribes_to_and_is_granted",
            "tests/contract/test_host_calls_events.py::test_a_subscription_can_be_made_and_ended_while_the_plugin_runs",
            "tests/integration/test_events.py::test_an_application_subscribes_publishes_and_replays_over_a_websocket",
            "tests/integration/test_events.py::test_a_plugin_that_dies_of_an_event_or_is_stopped_loses_none",
            "tests/integration/test_events.py::test_what_a_killed_host_answered_for_is_kept",
            "tests/unit/host/test_bus_handover.py::test_back_and_forth_every_event_is_seen_once_in_order_by_one_of_the_two",
            "tests/integration/test_events.py::test_an_instance_is_sent_events_from_when_it_is_to_be_and_hands_them_over_to_another",
            "tests/unit/host/test_upgrades.py::test_events_are_neither_lost_nor_doubled_by_swaps",
        ),
    ),
    Requirement(
        "CORE-8",
        "encrypted data persistence",
        "done",
        tests=(
            "tests/unit/host/test_upgrades.py::test_an_upgrade_takes_a_snapshot_and_a_rollback_can_restore_it",
            "tests/contract/test_host_calls.py::test_a_value_that_was_stored_is_found_until_it_is_deleted",
            "tests/unit/host/test_storage.py::test_writers_at_once_do_not_pass_the_quota_together",
            "tests/unit/host/test_keyring.py::test_it_opens_nowhere_else",
            "tests/unit/host/test_keyring.py::test_no_bit_of_it_can_be_altered_and_no_byte_cut_off",
            "tests/unit/host/test_keyring.py::test_what_was_sealed_for_a_forgotten_owner_cannot_be_opened",
            "tests/unit/host/test_keyring.py::test_renewing_replaces_every_key_destroys_the_master_key_and_loses_nothing",
            "tests/contract/test_host_calls_storage.py::test_an_author_uses_all_of_it_in_python",
            "tests/integration/test_rotation_killed.py::test_a_rotation_that_is_killed_loses_nothing_and_is_ended_by_the_next_host",
            "tests/unit/host/test_api_storage.py::test_a_snapshot_is_taken_listed_restored_and_deleted",
            "tests/unit/host/test_api_storage.py::test_keys_are_replaced_while_a_plugin_runs",
            "tests/unit/host/test_storage_sealed.py::test_of_writers_who_expect_one_version_one_wins",
            "tests/unit/host/test_storage_sealed.py::test_a_value_whose_time_has_come_is_gone_at_once_and_swept_from_the_quota",
            "tests/unit/host/test_storage_sealed.py::test_a_batch_is_done_in_its_order_and_wholly",
            "tests/unit/host/test_storage_sealed.py::test_of_a_batch_that_fails_nothing_is_done",
            "tests/unit/host/test_storage_sealed.py::test_what_is_stored_cannot_be_read_in_the_database",
            "tests/unit/host/test_storage_sealed.py::test_tampering_with_any_column_of_any_row_is_told_and_nothing_wrong_is_returned",
            "tests/unit/host/test_storage_sealed.py::test_a_row_that_was_moved_to_another_place_is_refused_there",
            "tests/unit/host/test_storage_sealed.py::test_a_row_of_a_snapshot_cannot_stand_in_for_a_newer_one",
            "tests/unit/host/test_storage_sealed.py::test_a_snapshot_brings_back_what_was_there_and_nothing_else",
            "tests/unit/host/test_storage_sealed.py::test_a_snapshot_that_lacks_a_row_or_has_another_is_not_restored",
            "tests/unit/host/test_storage_sealed.py::test_replacing_all_keys_under_load_loses_nothing",
            "tests/unit/host/test_storage_sealed.py::test_after_a_purge_nothing_can_be_read_even_of_rows_that_are_brought_back",
        ),
    ),
    Requirement(
        "CORE-9",
        "configuration management",
        "done",
        tests=(
            "tests/unit/sdk/test_configuration.py::test_a_wrong_value_is_named_with_what_is_wrong_and_the_remedy",
            "tests/unit/host/test_provisioning.py::test_a_plugin_waits_for_what_it_needs_by_name_and_starts_when_the_last_is_set",
            "tests/unit/host/test_provisioning.py::test_a_change_reaches_a_running_plugin_and_its_handler",
            "tests/unit/host/test_provisioning.py::test_a_change_that_the_plugin_refuses_stays_set_and_is_reported",
            "tests/unit/host/test_provisioning.py::test_every_version_is_kept_with_who_when_and_why_and_one_can_go_back",
            "tests/unit/host/test_provisioning.py::test_a_wrong_value_is_refused_with_every_problem_and_nothing_is_kept",
            "tests/unit/host/test_api_configuration.py::test_a_version_is_an_etag_and_another_one_since_is_a_conflict",
            "tests/unit/sdk/test_cli_configuration.py::test_values_are_read_by_the_plugins_schema",
            "tests/unit/sdk/test_runtime_settings.py::test_a_change_is_heard_and_read",
            "tests/security/test_secrets_nowhere.py::test_a_secret_is_found_nowhere_outside_its_plugin",
        ),
    ),
    Requirement(
        "CORE-10",
        "performance optimisation",
        "done",
        tests=(
            "tests/unit/host/test_profiles.py::test_a_profile_has_the_functions_the_calls_and_what_was_used_and_is_on_record",
            "tests/unit/host/test_profiles.py::test_what_is_no_profile_is_refused",
            "tests/unit/host/test_profiles.py::test_a_program_that_is_no_plugin_of_ours_says_that_it_cannot_be_profiled",
            "tests/unit/sdk/test_cli_profile.py::test_a_function_has_a_share_of_its_own_and_one_with_all_it_called",
            "tests/unit/sdk/test_runtime_profiling.py::test_who_works_and_who_waits_are_told_apart",
            "tests/unit/sdk/test_runtime_profiling.py::test_the_host_is_answered_once_at_a_time_and_calls_go_on_meanwhile",
            "tests/integration/test_profile_over_http.py::test_it_takes_the_scope_to_operate",
            "tests/unit/host/test_resources.py::test_suggestions_are_made_of_history_and_applied_in_one_call",
        ),
    ),
    # Isolation
    Requirement(
        "ISO-1",
        "process isolation",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_the_kernel_says_that_the_process_has_no_rights",
            "tests/integration/test_docker_engine.py::test_every_dangerous_system_call_is_refused",
            "tests/integration/test_docker_engine.py::test_only_unix_sockets_can_be_made",
            "tests/integration/test_lockdown.py::test_a_plugin_reaches_neither_process_1_nor_anything_outside_its_domain",
            "tests/integration/test_lockdown.py::test_a_program_of_the_plugin_cannot_look_into_the_worker",
            "tests/integration/test_kernel_readback.py::test_the_kernel_says_of_a_real_sandbox_what_was_asked_for",
            "tests/unit/host/test_kernel.py::test_nothing_differs_for_a_container_that_is_as_asked_for",
            "tests/unit/host/test_kernel.py::test_a_single_thing_that_is_otherwise_is_found",
            "tests/security/test_cis.py::test_the_benchmark_has_nothing_to_say_about_a_plugin",
            "tests/integration/test_mapped_users.py::test_a_plugin_is_called_and_its_root_is_nobody_on_the_machine",
        ),
    ),
    Requirement(
        "ISO-2",
        "memory isolation",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_a_plugin_that_takes_too_much_memory_is_ended_and_this_is_told",
            "tests/integration/test_limits.py::test_its_memory_ends_at_the_page_where_its_limit_is",
            "tests/integration/test_limits.py::test_a_plugin_that_takes_too_much_memory_is_ended_alone_and_with_its_cause",
        ),
    ),
    Requirement(
        "ISO-3",
        "file system isolation",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_the_only_files_of_the_machine_are_the_two_read_only_binds",
            "tests/integration/test_docker_engine.py::test_only_memory_can_be_written_and_nothing_there_can_be_executed",
            "tests/integration/test_lockdown.py::test_what_is_not_on_the_list_cannot_be_read",
            "tests/unit/host/test_kernel.py::test_a_single_thing_that_is_otherwise_is_found",
            "tests/security/test_cis.py::test_the_benchmark_has_nothing_to_say_about_a_plugin",
        ),
    ),
    Requirement(
        "ISO-4",
        "network isolation",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_there_is_no_network_but_the_loopback",
            "tests/integration/test_docker_engine.py::test_a_sandbox_with_egress_has_tcp_to_itself_and_nothing_else",
            "tests/unit/host/test_egress_judgement.py::test_an_address_that_is_not_a_public_one_of_somebody_else_is_refused",
            "tests/unit/host/test_egress_relay.py::test_what_is_not_granted_is_refused_and_the_record_names_host_port_and_permission",
            "tests/unit/host/test_egress_relay.py::test_a_revocation_cuts_what_is_open_within_a_tenth_of_a_second_and_refuses_the_next",
            "tests/unit/host/test_egress_relay.py::test_a_name_that_leads_to_one_forbidden_address_is_refused_whole",
            "tests/unit/host/test_egress_relay.py::test_a_name_that_is_rebound_is_looked_up_once_and_connected_to_what_was_judged",
            "tests/integration/test_egress_on_engine.py::test_unmodified_clients_reach_what_was_granted",
            "tests/integration/test_egress_on_engine.py::test_a_name_leads_to_the_runtime_inside_and_a_private_address_behind_it_is_refused",
            "tests/integration/test_egress_on_engine.py::test_all_else_fails_and_what_was_refused_is_on_record_with_the_permission_to_ask_for",
            "tests/integration/test_egress_on_engine.py::test_a_revoked_grant_stops_the_next_connection",
        ),
    ),
    Requirement(
        "ISO-5",
        "device isolation",
        "partial",
        tests=(
            "tests/integration/test_docker_engine.py::test_nothing_can_be_written_at",
            "tests/unit/host/test_kernel.py::test_a_single_thing_that_is_otherwise_is_found",
            "tests/security/test_cis.py::test_the_benchmark_has_nothing_to_say_about_a_plugin",
        ),
        lacks="granting a device",
    ),
    Requirement(
        "ISO-6",
        "isolation enforcement",
        "done",
        tests=(
            "tests/integration/test_docker_engine.py::test_calls_through_another_architecture_are_deadly",
            "tests/integration/test_docker_engine.py::test_with_the_tripwire_a_call_made_on_purpose_is_deadly_and_ordinary_work_goes_on",
            "tests/integration/test_docker_engine.py::test_nothing_in_the_image_changes_the_user",
            "tests/security/test_attacks.py::test_an_attack_is_stopped_by_a_layer_and_is_on_record",
            "tests/security/test_attacks.py::test_the_battery_covers_every_group_and_names_each_attack_once",
            "tests/security/test_attacks.py::test_the_battery_reaches_what_no_filter_keeps_from_it",
        ),
    ),
    Requirement(
        "ISO-7",
        "performance isolation",
        "partial",
        tests=(
            "tests/integration/test_overuse.py::test_a_plugin_at_its_quota_runs_only_when_nobody_else_wants_to",
            "tests/unit/host/test_yielding.py::test_who_is_held_back_by_his_quota_yields_at_once_and_competes_again_once_calm",
        ),
        lacks="the figure while a neighbour churns through memory",
    ),
    # Permissions
    Requirement(
        "PERM-1",
        "granular",
        "done",
        tests=(
            "tests/unit/sdk/test_manifest.py::test_a_permission_that_is_none_is_refused_with_advice",
            "tests/unit/sdk/test_manifest.py::test_a_permission_without_a_reason_is_refused",
            "tests/unit/host/test_permissions.py::test_nothing_is_allowed_until_it_is_granted",
            "tests/e2e/test_demo.py::test_an_install_waits_for_an_approval_and_then_runs",
        ),
    ),
    Requirement(
        "PERM-2",
        "runtime requests",
        "done",
        tests=(
            "tests/contract/test_host_calls_permissions.py::test_what_an_operator_approves_is_granted_and_the_call_goes_on",
            "tests/unit/host/test_permission_requests.py::test_a_grant_from_anywhere_lets_every_call_that_waits_go_on",
            "tests/unit/host/test_permission_requests.py::test_a_running_plugin_asks_and_an_operator_answers",
        ),
    ),
    Requirement(
        "PERM-3",
        "inheritance",
        "done",
        tests=(
            "tests/unit/host/test_balancing.py::test_every_instance_may_what_its_plugin_may_whenever_it_began",
            "tests/unit/host/test_bus.py::test_a_revocation_ends_a_subscription_at_once_with_what_is_on_its_way",
            "tests/unit/host/test_plugins.py::test_a_denial_by_area_wins_over_a_grant",
            "tests/unit/host/test_bridge_host_calls.py::test_a_denial_wins_over_the_widest_grant",
            "tests/unit/host/test_permissions.py::test_a_denial_wins_and_more_grants_never_take_anything",
            "tests/unit/host/test_permission_roles.py::test_who_has_a_role_may_what_it_bundles_as_it_is_now",
            "tests/unit/host/test_permission_roles.py::test_a_running_plugin_may_what_its_role_says_and_no_longer_what_it_does_not",
            "tests/unit/host/test_permission_roles.py::test_roles_and_ends_decide_as_the_rules_written_out_do",
        ),
    ),
    Requirement(
        "PERM-4",
        "revocation",
        "done",
        tests=(
            "tests/unit/host/test_plugins.py::test_a_revocation_is_felt_by_the_next_host_call_of_a_running_plugin",
            "tests/unit/host/test_egress_relay.py::test_a_revocation_cuts_what_is_open_within_a_tenth_of_a_second_and_refuses_the_next",
            "tests/integration/test_egress_on_engine.py::test_a_revoked_grant_stops_the_next_connection",
            "tests/unit/host/test_bridge_host_calls.py::test_a_revocation_cuts_the_host_calls_that_need_it_and_no_other",
        ),
    ),
    Requirement(
        "PERM-5",
        "auditing",
        "done",
        tests=(
            "tests/unit/host/test_audit.py::test_a_change_made_behind_our_back_is_found_at_its_place",
            "tests/unit/host/test_plugins.py::test_every_act_is_recorded_with_who_did_it",
            "tests/unit/host/test_plugins.py::test_an_act_whose_record_cannot_be_kept_is_not_done",
            "tests/unit/host/test_audit_checkpoints.py::test_every_one_of_a_thousand_corruptions_is_found",
            "tests/unit/host/test_audit_checkpoints.py::test_a_log_that_was_computed_anew_is_found_by_a_checkpoint_kept_elsewhere",
            "tests/unit/host/test_audit_checkpoints.py::test_an_exported_log_is_verified_elsewhere",
        ),
    ),
    Requirement(
        "PERM-6",
        "approval binds to content",
        "done",
        tests=(
            "tests/unit/host/test_plugins.py::test_an_approval_of_another_release_decides_nothing",
            "tests/integration/test_host_on_engine.py::test_a_plugin_that_offers_what_was_not_signed_is_quarantined_and_gone",
            "tests/integration/test_adoption.py::test_one_that_offers_what_was_not_signed_is_quarantined_and_gone",
            "tests/unit/host/test_permission_roles.py::test_however_wide_a_role_is_a_release_gets_what_it_asks_for",
            "tests/unit/host/test_drift.py::test_every_field_a_plugin_tells_is_compared",
            "tests/integration/test_adoption.py::test_one_that_offers_what_was_not_signed_is_quarantined_and_gone",
        ),
    ),
    # Security validation
    Requirement("VAL-1", "static analysis"),
    Requirement("VAL-2", "dynamic analysis"),
    Requirement("VAL-3", "malware detection"),
    Requirement("VAL-4", "vulnerability scanning"),
    Requirement(
        "VAL-5",
        "code signing",
        "partial",
        tests=(
            "tests/security/test_hostile_packages.py::test_a_package_that_is_not_wholly_what_its_author_signed_is_refused",
            "tests/security/test_hostile_packages.py::test_a_package_with_any_one_bit_flipped_is_refused",
            "tests/unit/host/test_install.py::test_another_author_is_refused_for_ever_after_the_first_install",
        ),
        lacks="the marketplace's countersignature",
    ),
    Requirement(
        "VAL-6",
        "runtime monitoring and threat detection",
        "done",
        tests=(
            "tests/unit/host/test_threat_rules.py::test_a_rule_that_counts_finds_it_at_its_threshold_within_its_window_and_not_before",
            "tests/unit/host/test_threats.py::test_what_a_rule_finds_is_acted_on_stored_audited_and_told",
            "tests/integration/test_alerts.py::test_a_burst_of_denials_becomes_an_alert_and_the_policys_action_is_taken",
            "tests/integration/test_tripwire.py::test_fifty_deadly_calls_are_each_named_and_given_to_their_plugin_within_a_second",
            "tests/integration/test_tripwire.py::test_a_plugin_that_mounts_is_killed_and_the_alert_says_so",
        ),
    ),
    Requirement(
        "VAL-7",
        "SBOM",
        "partial",
        tests=(
            "tests/unit/sdk/test_packaging_documents.py::test_the_sbom_names_the_plugin_and_what_it_vendors",
        ),
        lacks="a check against CycloneDX's own schema",
    ),
    # Resources
    Requirement(
        "RES-1",
        "real-time monitoring",
        "partial",
        tests=(
            "tests/unit/host/test_resources.py::test_every_round_reads_rates_of_every_instance_and_tells_them",
            "tests/integration/test_resources.py::test_a_busy_container_is_seen_at_its_quota_and_told_of",
        ),
        lacks="the console's chart, calls a second beside them",
    ),
    Requirement(
        "RES-2",
        "quotas per plugin type",
        "done",
        tests=(
            "tests/unit/host/test_hardening.py::test_limits_become_what_the_kernel_enforces",
            "tests/unit/host/test_install.py::test_tiers_and_defaults_of_the_operator_are_the_limits_of_what_is_installed",
            "tests/unit/sdk/test_policy.py::test_limits_are_the_explicit_over_the_tiers_over_the_kinds",
            "tests/unit/sdk/test_policy.py::test_a_cap_holds_for_what_a_tier_brings_too",
            "tests/unit/host/test_resources.py::test_an_operators_limits_are_kept_audited_and_in_force_at_once",
        ),
    ),
    Requirement(
        "RES-3",
        "usage analytics",
        "partial",
        tests=(
            "tests/unit/host/test_resources_values.py::test_a_percentile_is_within_a_hundredth_of_the_nearest_rank",
            "tests/unit/host/test_resources.py::test_history_keeps_minutes_and_tells_percentiles_of_all",
        ),
        lacks="history of each function",
    ),
    Requirement(
        "RES-4",
        "profiling",
        "partial",
        tests=(
            "tests/unit/host/test_profiles.py::test_a_profile_has_the_functions_the_calls_and_what_was_used_and_is_on_record",
            "tests/unit/sdk/test_cli_profile.py::test_a_function_has_a_share_of_its_own_and_one_with_all_it_called",
        ),
        lacks="profiles of the heap",
    ),
    Requirement(
        "RES-5",
        "recommendations",
        "done",
        tests=(
            "tests/unit/host/test_resources_values.py::test_suggestions_follow_from_percentiles_with_room",
            "tests/unit/host/test_resources.py::test_suggestions_are_made_of_history_and_applied_in_one_call",
        ),
    ),
    Requirement(
        "RES-6",
        "quota enforcement",
        "done",
        tests=(
            "tests/integration/test_running.py::test_a_plugin_that_runs_out_of_memory_at_its_start_says_so",
            "tests/integration/test_limits.py::test_a_flood_costs_the_host_and_the_engine_next_to_nothing",
            "tests/unit/host/test_enforcement.py::test_sustained_overuse_climbs_one_rung_after_another_each_at_its_time",
            "tests/unit/host/test_resources.py::test_overuse_is_answered_step_by_step_and_each_step_is_on_record",
        ),
    ),
    Requirement(
        "RES-7",
        "priority",
        "partial",
        tests=("tests/integration/test_resources.py::test_measured_shares_follow_the_priorities",),
        lacks="measured shares of the disk, which this kernel does not weigh",
    ),
    Requirement(
        "RES-8",
        "throttling",
        "done",
        tests=(
            "tests/integration/test_containment.py::test_a_throttled_plugin_answers_and_is_restored",
            "tests/integration/test_containment.py::test_the_kernel_says_that_it_is_slower_and_then_stands_still",
            "tests/unit/host/test_enforcement.py::test_what_was_throttled_is_restored_once_it_was_well_for_long_enough",
            "tests/unit/host/test_resources.py::test_overuse_is_answered_step_by_step_and_each_step_is_on_record",
            "tests/integration/test_overuse.py::test_a_plugin_that_burns_for_long_is_throttled_in_the_kernel_and_restored_when_it_rests",
        ),
    ),
    Requirement(
        "RES-9",
        "emergency shutdown",
        "done",
        tests=(
            "tests/integration/test_containment.py::test_a_killed_plugin_says_why_and_comes_back",
            "tests/integration/test_containment.py::test_a_quarantined_plugin_starts_only_after_somebody_looked",
            "tests/integration/test_containment.py::test_a_frozen_plugin_can_be_killed",
        ),
    ),
    Requirement(
        "RES-10",
        "recovery",
        "done",
        tests=(
            "tests/e2e/test_demo.py::test_nothing_is_left_behind",
            "tests/integration/test_host_on_engine.py::test_a_killed_host_is_followed_by_one_that_runs_the_same_once",
            "tests/integration/test_install_killed.py::test_the_next_host_finds_nothing_or_all_and_can_install",
            "tests/integration/test_recovery.py::test_the_next_host_goes_on_with_every_plugin_where_it_was",
            "tests/integration/test_recovery.py::test_limits_that_were_changed_live_or_while_no_host_was_there_cost_no_instance",
            "tests/integration/test_recovery.py::test_a_host_killed_anywhere_is_followed_by_one_that_lost_doubled_and_left_nothing",
            "tests/integration/test_recovery.py::test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room_again",
            "tests/integration/test_adoption.py::test_what_does_not_fit_is_removed_and_what_is_wanted_started_anew",
            "tests/integration/test_runtime_process.py::test_a_plugin_outlives_its_host_and_remembers",
            "tests/integration/test_repair_on_engine.py::test_what_comes_after_a_crash_is_walled_in_as_what_came_before_and_finds_nothing_of_it",
            "tests/integration/test_repair_on_engine.py::test_a_signal_a_last_error_and_full_memory_are_told_as_causes",
            "tests/integration/test_repair_on_engine.py::test_a_call_that_may_run_again_is_answered_by_the_process_that_comes_next",
            "tests/integration/test_repair_on_engine.py::test_a_plugin_that_crashes_in_every_call_ends_in_a_crash_loop",
            "tests/integration/test_repair_on_engine.py::test_nothing_of_the_plugin_runs_where_its_next_process_cannot_be_locked_down",
            "tests/integration/test_repair_on_engine.py::test_the_end_of_its_first_process_is_the_end_of_the_instance",
            "tests/integration/test_repair_on_engine.py::test_a_plugin_that_was_started_warm_is_repaired_too_and_as_nobody_elses",
            "tests/integration/test_repair_process.py::test_whoever_comes_next_says_how_the_one_before_ended_and_finds_nothing_of_it",
            "tests/integration/test_repair_process.py::test_after_so_many_repairs_the_sandbox_ends_with_the_last_crash",
            "tests/unit/host/test_bridge_repairs.py::test_breaches_of_the_protocol_stay_counted",
            "tests/unit/host/test_bridge_repairs.py::test_events_that_come_meanwhile_wait_for_whoever_comes_next",
        ),
    ),
    Requirement(
        "RES-11",
        "pooling",
        "partial",
        tests=(
            "tests/unit/host/test_pool.py::test_a_plugin_is_started_in_a_blank_and_is_as_ever",
            "tests/unit/host/test_pool.py::test_there_are_as_many_blanks_as_the_operator_says_and_none_is_used_twice",
            "tests/integration/test_warm_on_engine.py::test_a_warm_plugin_answers_and_is_locked_down_as_a_cold_one",
        ),
        lacks="a warm start is five to seven hundredths of a cold one (bench warm), and is to be two or three",
    ),
    Requirement(
        "RES-12",
        "load balancing",
        "done",
        tests=(
            "tests/unit/host/test_fleet.py::test_however_calls_come_and_go_each_goes_to_one_of_the_idlest",
            "tests/unit/host/test_balancing.py::test_each_instance_has_a_user_a_socket_and_a_container_of_its_own",
            "tests/unit/host/test_balancing.py::test_idle_instances_take_turns_and_busy_ones_are_passed_over",
            "tests/unit/host/test_balancing.py::test_an_instance_that_dies_under_load_loses_no_idempotent_call",
            "tests/unit/host/test_balancing.py::test_fewer_are_wanted_and_those_that_leave_are_drained",
            "tests/unit/host/test_bus.py::test_of_several_instances_one_has_what_the_manifest_subscribes_to_and_then_the_next",
            "tests/unit/host/test_resources.py::test_a_plugin_of_several_instances_is_judged_by_the_busiest_as_long_as_that_is_there",
            "tests/unit/sdk/test_cli.py::test_every_instance_is_shown_where_one_is_looked_at",
            "tests/integration/test_adoption.py::test_all_instances_of_a_plugin_go_on_and_no_more_than_it_is_to_have",
            "tests/integration/test_balancing_on_engine.py::test_real_instances_share_calls_and_one_that_is_killed_loses_none",
            "tests/unit/host/test_capacity.py::test_more_calls_start_more_within_seconds_and_as_many_as_it_takes",
            "tests/unit/host/test_capacity.py::test_fewer_calls_stop_one_at_a_time_and_each_only_after_the_long_window",
            "tests/unit/host/test_balancing.py::test_the_number_follows_the_load_between_its_bounds_and_says_why",
            "tests/unit/host/test_balancing.py::test_one_that_is_too_many_for_the_load_ends_its_calls_first",
            "tests/integration/test_idle_on_engine.py::test_a_real_load_starts_more_and_its_end_stops_them_without_an_error",
        ),
    ),
    Requirement(
        "RES-13",
        "caching",
        "done",
        tests=("tests/unit/host/test_calls.py::test_a_cacheable_function_runs_once_for_the_same_arguments",),
    ),
    Requirement(
        "RES-14",
        "memory and CPU optimisation",
        "done",
        tests=(
            "tests/unit/host/test_capacity.py::test_who_hears_events_or_is_throttled_is_not_stopped_and_what_does_not_run_is_left_alone",
            *(f"tests/unit/host/test_idle.py::{name}" for name in IDLE),
            "tests/integration/test_idle_on_engine.py::test_a_real_plugin_sleeps_answers_is_stopped_and_answers",
        ),
    ),
    # Hot loading
    Requirement(
        "HOT-1",
        "zero-downtime upgrade",
        "done",
        tests=(
            "tests/unit/host/test_upgrades.py::test_a_release_takes_the_place_of_another_under_load_and_no_call_fails",
            "tests/unit/host/test_upgrades.py::test_calls_that_are_inside_end_where_they_began",
            "tests/unit/host/test_upgrades.py::test_no_call_is_made_twice_by_a_swap",
            "tests/integration/test_upgrades_on_engine.py::test_real_releases_are_swapped_under_load_and_no_call_fails",
            "tests/unit/host/test_upgrades.py::test_events_are_neither_lost_nor_doubled_by_swaps",
        ),
    ),
    Requirement(
        "HOT-2",
        "rollback",
        "done",
        tests=(
            "tests/unit/host/test_upgrades.py::test_back_and_forth_under_load_and_no_call_fails",
            "tests/unit/host/test_upgrades.py::test_a_release_that_sickens_in_its_probation_is_rolled_back",
            "tests/unit/host/test_upgrades.py::test_a_release_that_dies_in_its_probation_is_rolled_back_at_once",
            "tests/unit/host/test_upgrades.py::test_without_its_old_instances_the_release_before_starts_again",
            "tests/unit/host/test_upgrades.py::test_a_rollback_without_old_instances_is_a_swap",
            "tests/integration/test_upgrades_on_engine.py::test_real_releases_are_swapped_under_load_and_no_call_fails",
            "tests/unit/host/test_canary.py::test_a_release_that_fails_is_rolled_back_for_what_it_did_and_the_other_was_never_touched",
            "tests/unit/host/test_canary.py::test_one_that_dies_is_rolled_back_at_once_and_what_may_run_again_runs_where_it_serves",
            "tests/unit/host/test_probation.py::test_one_that_is_busy_is_tested_too",
            "tests/unit/host/test_probation.py::test_without_old_instances_the_release_before_starts_beside_the_one_that_is_not_well",
            "tests/integration/test_canary_on_engine.py::test_real_releases_are_tried_under_load_and_what_they_do_decides",
        ),
    ),
    Requirement(
        "HOT-3",
        "permission diff at upgrade",
        "done",
        tests=(
            "tests/unit/host/test_upgrades.py::test_more_rights_wait_for_exactly_their_approval_and_the_old_release_serves",
            "tests/unit/host/test_upgrades.py::test_fewer_rights_need_no_approval_and_what_is_not_asked_for_is_gone",
            "tests/unit/host/test_upgrades.py::test_a_role_reaches_no_further_than_the_release_before_asked",
            "tests/unit/host/test_upgrades.py::test_what_was_denied_or_ends_stays_so_with_the_next_release",
            "tests/unit/host/test_upgrades_hostile.py::test_what_was_denied_in_its_probation_a_plugin_does_not_get_back_by_dying",
            "tests/unit/host/test_upgrades_hostile.py::test_a_grant_that_was_taken_back_is_not_there_after_a_rollback",
            "tests/unit/host/test_upgrades_hostile.py::test_a_denial_outlives_a_rollback_and_the_next_upgrade",
            "tests/unit/host/test_upgrades_hostile.py::test_what_is_decided_while_an_upgrade_waits_holds_for_it_unless_it_was_decided_on_later",
            "tests/unit/host/test_canary.py::test_what_is_taken_from_the_release_that_serves_is_taken_from_the_one_that_is_tried",
        ),
    ),
    # Marketplace
    Requirement(
        "MKT-1",
        "discovery",
        "partial",
        tests=(
            "tests/unit/marketplace/test_catalog.py::test_every_word_of_a_search_must_be_in_name_summary_or_categories",
            "tests/unit/marketplace/test_catalog.py::test_a_category_is_matched_whole",
        ),
        lacks="ranking, featured and verified, feeds",
    ),
    Requirement("MKT-2", "recommendations"),
    Requirement(
        "MKT-3",
        "secure distribution",
        "partial",
        tests=(
            "tests/unit/marketplace/test_downloads.py::test_a_damaged_package_is_not_handed_out",
            "tests/unit/host/test_install.py::test_other_bytes_than_those_resolved_are_refused",
        ),
        lacks="TUF, countersignature, transparency log",
    ),
    Requirement(
        "MKT-4",
        "version control",
        "partial",
        tests=("tests/unit/marketplace/test_publish.py::test_a_version_is_never_published_with_other_bytes",),
        lacks="yank and deprecate",
    ),
    Requirement(
        "MKT-5",
        "dependency management",
        "done",
        tests=(
            "tests/unit/marketplace/test_catalog.py::test_a_lock_has_dependencies_first_and_all_that_a_host_needs",
            "tests/unit/host/test_install.py::test_a_release_is_brought_with_what_it_needs_and_all_of_it_is_recorded",
        ),
    ),
    Requirement("MKT-6", "updates"),
    Requirement("MKT-7", "reviews and reputation"),
    Requirement("MKT-8", "quality assurance"),
    Requirement("MKT-9", "monetisation and licensing"),
    Requirement(
        "MKT-10",
        "publishing",
        "partial",
        tests=(
            "tests/unit/marketplace/test_accounts.py::test_a_token_cannot_make_one_that_may_do_more",
            "tests/unit/marketplace/test_publish.py::test_a_published_package_becomes_a_release_that_anybody_can_read",
            "tests/e2e/test_guide.py::test_the_guide_leads_from_nothing_to_a_published_plugin",
        ),
        lacks="OIDC trusted publishing",
    ),
    Requirement("MKT-11", "statistics"),
    Requirement("MKT-12", "moderation"),
    Requirement(
        "MKT-13",
        "REST API",
        "partial",
        tests=(
            "tests/unit/marketplace/test_api.py::test_every_error_is_a_problem_document",
            "tests/unit/marketplace/test_downloads.py::test_what_the_client_has_is_not_sent_again",
            "tests/unit/marketplace/test_catalog.py::test_pages_hold_their_place_while_plugins_come_in_between",
            "tests/unit/marketplace/test_publish.py::test_publishing_the_same_bytes_again_gives_the_same_release",
        ),
        lacks="rate limits, ETags on the catalogue",
    ),
    Requirement("MKT-14", "web pages"),
    Requirement(
        "MKT-15",
        "SQLite or Postgres",
        "partial",
        tests=(
            "tests/integration/test_migrations.py::test_the_migrations_make_what_the_code_knows_and_take_it_away_again",
            "tests/integration/test_marketplace_process.py::test_a_server_serves_until_it_is_asked_to_stop_and_keeps_what_it_has",
        ),
        lacks="several replicas on one Postgres",
    ),
    # Council
    Requirement("COU-1", "parallel coordination"),
    Requirement("COU-2", "synchronisation"),
    Requirement("COU-3", "load distribution"),
    Requirement("COU-4", "failover"),
    Requirement("COU-5", "live optimisation"),
    Requirement("COU-6", "voting"),
    Requirement("COU-7", "confidence weighting"),
    Requirement("COU-8", "disagreement resolution"),
    Requirement("COU-9", "consensus validation"),
    Requirement("COU-10", "adaptive consensus"),
    Requirement("COU-11", "interference"),
    Requirement("COU-12", "interference optimisation"),
    Requirement("COU-13", "resonance"),
    Requirement("COU-14", "frequency, amplitude, phase control"),
    Requirement("COU-15", "council client"),
    # Developer kit
    Requirement(
        "DEV-1",
        "SDK",
        "partial",
        tests=(
            "tests/unit/sdk/test_runtime_functions.py::test_every_kind_of_type_becomes_a_valid_schema_that_takes_what_the_function_takes",
            "tests/architecture/test_distributions.py::test_the_umbrella_depends_on_what_its_members_depend_on",
        ),
        lacks="the council",
    ),
    Requirement(
        "DEV-2",
        "CLI",
        "partial",
        tests=(
            "tests/unit/sdk/test_cli.py::test_every_command_has_json_and_help",
            "tests/unit/sdk/test_cli.py::test_the_exit_code_tells_the_kind_of_error",
            "tests/integration/test_mcp_operator.py::test_an_operator_makes_a_token_decides_on_its_calls_and_revokes_it",
        ),
        lacks="dev, test, check, stats, upgrade, rollback",
    ),
    Requirement(
        "DEV-3",
        "templates",
        "partial",
        tests=("tests/integration/test_cli_author.py::test_the_tests_of_each_template_pass",),
        lacks="templates for councils and WebAssembly",
    ),
    Requirement(
        "DEV-4",
        "testing framework",
        "partial",
        tests=(
            "tests/unit/sdk/test_testing.py::test_a_project_runs_in_a_process_of_its_own",
            "tests/unit/sdk/test_testing.py::test_what_is_not_granted_is_refused_and_recorded_and_a_grant_helps_at_once",
        ),
        lacks="the real sandbox as a fixture",
    ),
    Requirement(
        "DEV-5",
        "debugging and profiling",
        "partial",
        tests=(
            "tests/integration/test_host_on_engine.py::test_the_log_of_a_plugin_is_streamed",
            "tests/unit/host/test_profiles.py::test_a_profile_has_the_functions_the_calls_and_what_was_used_and_is_on_record",
            "tests/unit/sdk/test_cli_profile.py::test_a_function_has_a_share_of_its_own_and_one_with_all_it_called",
            "tests/unit/sdk/test_runtime_profiling.py::test_who_works_and_who_waits_are_told_apart",
        ),
        lacks="live reload, replay",
    ),
    Requirement(
        "DEV-6",
        "API documentation",
        "partial",
        tests=("tests/e2e/test_guide.py::test_the_guide_leads_from_nothing_to_a_published_plugin",),
        lacks="a reference generated from the code",
    ),
    # Schemas
    Requirement(
        "SCH-1",
        "manifest schema",
        "done",
        tests=(
            "tests/architecture/test_schemas.py::test_nothing_exported_has_drifted",
            "tests/architecture/test_schemas.py::test_manifests_that_the_code_takes_fit_the_schema",
        ),
    ),
    Requirement(
        "SCH-2",
        "API collection schema",
        "done",
        tests=("tests/architecture/test_schemas.py::test_an_api_describes_itself_in_openapi_3_1",),
    ),
    Requirement(
        "SCH-3",
        "security policy schema",
        "done",
        tests=(
            "tests/architecture/test_schemas.py::test_policies_that_the_code_takes_fit_the_schema",
            "tests/architecture/test_schemas.py::test_nothing_exported_has_drifted",
            "tests/unit/host/test_hardening.py::test_an_engine_without_what_the_operator_requires_runs_nothing",
            "tests/unit/host/test_install.py::test_a_release_that_asks_for_a_right_beyond_the_policy_is_not_brought",
            "tests/unit/sdk/test_policy.py::test_a_cap_holds_for_what_a_tier_brings_too",
        ),
    ),
    Requirement(
        "SCH-4",
        "configuration schema",
        "done",
        tests=(
            "tests/architecture/test_schemas.py::test_nothing_exported_has_drifted",
            "tests/unit/sdk/test_configuration.py::test_a_configuration_is_json_schema_2020_12_that_the_library_takes",
        ),
    ),
    Requirement(
        "SCH-5",
        "marketplace schema",
        "done",
        tests=(
            "tests/architecture/test_schemas.py::test_an_api_describes_itself_in_openapi_3_1",
            "tests/architecture/test_schemas.py::test_nothing_exported_has_drifted",
        ),
    ),
    # Test kinds
    Requirement(
        "TST-1",
        "security tests",
        "done",
        tests=(
            "tests/security/test_api_fuzz.py::test_nothing_that_is_asked_of_the_admin_api_breaks_it",
            "tests/security/test_bridge_fuzz.py::test_no_bytes_of_a_plugin_break_the_bridge",
            "tests/security/test_bridge_abuse.py::test_one_plugins_flood_does_not_keep_another_from_being_answered",
            "tests/security/test_hostile_packages.py::test_an_archive_that_our_builder_would_not_write_is_refused",
            "tests/security/test_attacks.py::test_an_attack_is_stopped_by_a_layer_and_is_on_record",
        ),
    ),
    Requirement(
        "TST-2",
        "performance across hardware tiers tests",
        "partial",
        tests=("tests/unit/test_bench.py::test_a_line_of_json_has_exactly_the_agreed_keys",),
        lacks="hardware tiers",
    ),
    Requirement(
        "TST-3",
        "integration tests",
        "partial",
        tests=("tests/e2e/test_demo.py::test_a_call_on_real_input_answers",),
        lacks="a command of its own",
    ),
    Requirement("TST-4", "compatibility across system versions tests"),
    Requirement("TST-5", "load tests"),
    # Planned in the specification, promised by us
    Requirement("NEXT-1", "WebAssembly plugins"),
    Requirement("NEXT-2", "cross-platform plugins"),
    Requirement("NEXT-3", "advanced council"),
    Requirement("NEXT-4", "plugin analytics"),
    Requirement("NEXT-5", "distributed marketplace"),
    # Beyond the specification
    Requirement(
        "BEY-1",
        "Model Context Protocol in and out",
        "done",
        tests=(
            "tests/e2e/test_demo.py::test_an_unmodified_mcp_server_answers",
            "tests/integration/test_cli_add.py::test_a_server_becomes_a_project_that_builds",
            "tests/e2e/test_mcp_servers.py::test_an_unmodified_server_answers_from_a_sandbox_that_is_as_asked",
            "tests/e2e/test_mcp_servers.py::test_the_server_that_fetches_reaches_what_was_granted_and_nothing_else",
            "tests/e2e/test_mcp_servers.py::test_the_git_server_reads_a_repository_of_its_package_with_a_git_of_its_package",
            "tests/e2e/test_mcp_servers.py::test_a_tool_that_differs_is_refused_and_the_rest_goes_on_until_it_is_approved",
            "tests/integration/test_function_quarantine.py::test_what_differs_at_the_start_is_refused_and_the_rest_goes_on",
            "tests/integration/test_function_quarantine.py::test_what_changes_while_it_runs_is_refused_from_then_on_and_back_when_it_is_as_it_was",
            "tests/integration/test_function_quarantine.py::test_an_approval_lets_go_exactly_what_was_looked_at_and_outlives_a_restart",
            "tests/integration/test_mcp_sdks.py::test_an_unmodified_sdk_lists_calls_waits_for_a_yes_and_hears_of_changes",
            "tests/integration/test_mcp_endpoint.py::test_a_token_decides_what_is_listed_and_what_is_called",
            "tests/integration/test_mcp_endpoint.py::test_changes_are_told_to_whose_tools_they_are_and_to_nobody_else",
            "tests/integration/test_mcp_endpoint.py::test_a_cancelled_call_reaches_the_plugin_and_gets_no_answer",
            "tests/integration/test_mcp_endpoint.py::test_a_no_is_an_error_that_a_model_can_read_and_is_on_record",
            "tests/integration/test_mcp_endpoint.py::test_always_holds_for_this_token_function_and_release_and_until_it_is_taken_back",
            "tests/integration/test_mcp_operator.py::test_an_operator_makes_a_token_decides_on_its_calls_and_revokes_it",
            "tests/unit/sdk/test_tool_sets.py::test_what_may_destroy_or_reach_out_is_asked_about",
            "tests/integration/test_mcp_stdio.py::test_a_call_that_waits_for_a_yes_tells_its_progress_and_then_the_functions",
            "tests/integration/test_mcp_stdio.py::test_what_a_function_says_of_its_progress_reaches_who_gave_a_token_while_it_works",
        ),
    ),
    Requirement(
        "BEY-2",
        "truly offline",
        "partial",
        tests=(
            "tests/integration/test_packaging_vendoring.py::test_requirements_are_vendored_with_what_they_need",
        ),
        lacks="bundles of a catalogue",
    ),
    Requirement(
        "BEY-3",
        "canary with a verdict",
        "done",
        tests=(
            "tests/unit/host/test_canary.py::test_a_good_release_is_tried_on_a_share_and_promoted_and_no_call_fails",
            "tests/unit/host/test_canary.py::test_a_release_that_fails_is_rolled_back_for_what_it_did_and_the_other_was_never_touched",
            "tests/unit/host/test_canary.py::test_a_shadow_answers_nobody_and_is_rolled_back_for_what_it_would_have_answered",
            "tests/unit/host/test_canary.py::test_a_shadow_that_answers_the_same_is_promoted_with_an_instance_that_may_write",
            "tests/unit/host/test_canary.py::test_a_shadow_that_answers_otherwise_is_rolled_back",
            "tests/unit/host/test_canary.py::test_a_shadow_changes_nothing_that_the_host_keeps",
            "tests/unit/host/test_canary.py::test_who_is_to_stay_where_he_is_stays",
            "tests/unit/host/test_canary.py::test_one_that_dies_is_rolled_back_at_once_and_what_may_run_again_runs_where_it_serves",
            "tests/unit/sdk/test_cli.py::test_how_a_release_is_tried_is_sent_and_how_it_does_is_shown",
            "tests/unit/host/test_verdict.py::test_looking_again_and_again_rolls_no_more_good_releases_back_than_stated",
            "tests/unit/host/test_verdict.py::test_were_every_look_to_use_the_whole_chance_more_good_releases_would_be_rolled_back",
            "tests/unit/host/test_verdict.py::test_a_release_that_is_worse_than_allowed_is_promoted_no_more_often_than_stated",
            "tests/unit/host/test_verdict.py::test_a_release_that_is_truly_worse_is_found_in_nine_trials_of_ten",
            "tests/unit/host/test_verdict.py::test_a_release_that_never_fails_and_is_as_fast_is_promoted_in_nine_trials_of_ten",
            "tests/integration/test_canary_on_engine.py::test_real_releases_are_tried_under_load_and_what_they_do_decides",
        ),
    ),
    Requirement(
        "BEY-4",
        "least privilege proved",
        "done",
        tests=(
            "tests/unit/host/test_permissions.py::test_use_is_counted_and_what_was_never_used_is_told",
            "tests/unit/sdk/test_cli.py::test_the_smallest_manifest_is_what_was_used_and_denied",
            "tests/unit/sdk/test_cli.py::test_grants_that_were_never_used_are_taken_back",
        ),
    ),
    Requirement("BEY-5", "many machines"),
)


def status_table() -> str:
    """The table of docs/status.md: a count of the states, then a row for each promise."""
    counts = Counter(requirement.state for requirement in REQUIREMENTS)
    lines = [
        f"{len(REQUIREMENTS)} promises: {', '.join(f'{counts[state]} {state}' for state in STATES)}.",
        "",
        "| id | promise | state | shown by | lacks |",
        "|---|---|---|---|---|",
    ]
    for one in REQUIREMENTS:
        shown_by = ", ".join(f"[{_name(test)}](../{test.split('::')[0]})" for test in one.tests)
        lines.append(f"| {one.id} | {one.title} | {one.state} | {shown_by} | {one.lacks} |")
    return "\n".join(lines) + "\n"


def written_table() -> str:
    """The table that docs/status.md holds now; empty when it has none."""
    text = STATUS.read_text(encoding="utf-8") if STATUS.exists() else ""
    return text.partition(BEGIN)[2].partition(END)[0]


def write_table() -> None:
    """Puts the table into docs/status.md and leaves the text around it."""
    before, mark, rest = STATUS.read_text(encoding="utf-8").partition(BEGIN)
    if not mark:
        raise ValueError(f"{STATUS} has no line {BEGIN.strip()}")
    STATUS.write_text(before + BEGIN + status_table() + END + rest.partition(END)[2], encoding="utf-8")


def _name(test: str) -> str:
    return test.rsplit("::", 1)[1].removeprefix("test_").replace("_", " ")


def main() -> int:
    """Writes the table, or tells whether it is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.requirements", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="renew the table in docs/status.md")
    if parser.parse_args().write:
        write_table()
    return 0 if written_table() == status_table() else 1


if __name__ == "__main__":
    sys.exit(main())
