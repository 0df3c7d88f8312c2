"""Planted faults in the sources: one at a time, each of them has to fail the tests that are there to find it.

Each fault is one that a tired engineer would write: a wrong sign, axis or count, a mask or a detach left out. The
package is copied, one text is replaced, and the tests named beside it are run on the copy in a process of their own. A
fault that they pass is a missing test. Tests that start processes of their own do not count: these import what is
installed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("src", "conf", "scripts", "tests", "pyproject.toml")


class Mutant(NamedTuple):
    """A fault: `old` stands exactly once in a file of the package, and is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: str  # files or node ids of any of the suites, with spaces between


MUTANTS = (
    # ------------------------------------------------------------------ returns, types, seeds
    Mutant(
        "returns_carried_undiscounted_between_blocks",
        "returns.py",
        "carried = discount * matrix[",
        "carried = matrix[",
        "test_returns.py::test_blocks_equal_the_naive_recursion",
    ),
    Mutant(
        "returns_bootstrap_undiscounted",
        "returns.py",
        "is_last * (gamma * last_values)",
        "is_last * last_values",
        "test_returns.py::test_last_values_count_after_the_last_valid_step",
    ),
    Mutant(
        "returns_total_beyond_the_end",
        "returns.py",
        "gamma, last_values)[:1] * valid",
        "gamma, last_values)[:1].expand_as(rewards)",
        "test_returns.py::test_total_return_by_hand",
    ),
    Mutant(
        "returns_discounts_begin_at_1",
        "returns.py",
        "gamma ** torch.arange(steps,",
        "gamma ** torch.arange(1, steps + 1,",
        "test_score_function.py::test_discounted_steps_weigh_step_t_by_gamma_to_the_t",
    ),
    Mutant(
        "whiten_by_the_unbiased_deviation",
        "returns.py",
        "sum(dim=dims) / number).sqrt()",
        "sum(dim=dims) / (number - 1)).sqrt()",
        "test_returns.py::test_whitened_entries_have_mean_0_and_std_1_over_valid_steps",
    ),
    Mutant(
        "whiten_deviation_over_padding",
        "returns.py",
        "(((x - mean) * valid).square()",
        "((x - mean).square()",
        "test_returns.py::test_whitened_entries_have_mean_0_and_std_1_over_valid_steps",
    ),
    Mutant(
        "gae_values_beyond_the_end",
        "returns.py",
        "    values = torch.where(valid, values, 0.0)\n    following",
        "    following",
        "test_returns.py::test_generalized_advantage_does_not_look_beyond_an_episode_s_end",
    ),
    Mutant(
        "gae_deltas_beyond_the_end",
        "returns.py",
        "torch.where(valid, rewards + gamma * following - values, 0.0)",
        "rewards + gamma * following - values",
        "test_returns.py::test_generalized_advantage_does_not_look_beyond_an_episode_s_end",
    ),
    Mutant(
        "gae_bootstraps_by_the_next_row",
        "returns.py",
        "following = torch.where(is_last, last_values, following)",
        "following[-1] = last_values",
        "test_returns.py::test_generalized_advantage_by_hand",
    ),
    Mutant(
        "running_moments_decay_twice",
        "returns.py",
        "self.decay * self.sums + new",
        "self.decay * self.sums + (1.0 - self.decay) * new",
        "test_returns.py::test_running_moments_are_those_of_the_weighed_batches",
    ),
    Mutant(
        "explained_variance_sees_an_offset",
        "returns.py",
        "(target - prediction).var(correction=0)",
        "(target - prediction).square().mean()",
        "test_returns.py::test_explained_variance_by_hand",
    ),
    Mutant(
        "episodes_last_step_is_the_first",
        "types.py",
        "next_valid[:-1] = self.valid[1:]",
        "next_valid[1:] = self.valid[:-1]",
        "test_types.py::test_properties_follow_from_valid",
    ),
    Mutant(
        "episodes_padding_counts_as_steps",
        "types.py",
        "values.flatten(0, 1) if self.valid.all()",
        "values.flatten(0, 1) if self.valid.any()",
        "test_score_function.py::test_nothing_beyond_an_episode_s_end_counts",
    ),
    Mutant(
        "episode_returns_carry_the_graph",
        "types.py",
        "self.rewards.detach().sum(dim=0)",
        "self.rewards.sum(dim=0)",
        "test_types.py::test_episode_returns_carry_no_graph",
    ),
    Mutant(
        "seeds_are_shared_by_ranks",
        "seeding.py",
        "(int(stream), rank, index)",
        "(int(stream), index)",
        "test_seeding.py::test_stream_numbers_and_one_seed_are_pinned_for_old_runs",
    ),
    Mutant(
        "seeds_of_rank_and_update_add_up",
        "seeding.py",
        "(int(stream), rank, index)",
        "(int(stream), 0, rank + index)",
        "test_seeding.py::test_no_two_of_a_big_grid_collide",
    ),
    Mutant(
        "seeds_of_environments_count_up",
        "seeding.py",
        "[int(state) for state in states]",
        "[seed + lane for lane in range(len(states))]",
        "test_seeding.py::test_stream_numbers_and_one_seed_are_pinned_for_old_runs",
    ),
    # ------------------------------------------------------------------ rollouts
    Mutant(
        "lanes_truncated_where_also_terminated",
        "rollout/lanes.py",
        "|= ended & ~step.terminated",
        "|= ended & step.truncated",
        "test_rollout.py::test_a_terminal_state_at_the_time_limit_is_terminated_not_truncated",
    ),
    Mutant(
        "lanes_observe_after_the_end",
        "rollout/lanes.py",
        "step.observations if self._whole else choose(self.alive, step.observations, self.observation)",
        "step.observations",
        "test_rollout.py::test_windows_end_to_end_are_the_whole_rollout",
    ),
    Mutant(
        "lanes_end_twice",
        "rollout/lanes.py",
        "ended = ended & self.alive",
        "pass",
        "test_rollout.py::test_the_end_of_an_episode_that_autoreset_began_is_not_that_of_the_first",
    ),
    Mutant(
        "lanes_last_episode_is_never_begun",
        "rollout/lanes.py",
        "places <= self.env.num_episodes - self._begun",
        "places < self.env.num_episodes - self._begun",
        "test_lanes.py::test_each_worker_begins_another_episode_until_all_were_begun",
    ),
    Mutant(
        "lanes_left_out_forget_their_last_observation",
        "rollout/lanes.py",
        "    def _narrow(self) -> None:\n        self._last = self.last_observations()\n",
        "    def _narrow(self) -> None:\n",
        "test_lanes.py::test_leaving_lanes_out_changes_no_episode",
    ),
    Mutant(
        "episodes_laid_out_by_the_step_of_the_batch",
        "rollout/lanes.py",
        "steps.to(episodes.device) - torch.cat(starts))[counts]",
        "steps.to(episodes.device))[counts]",
        "test_lanes.py::test_each_worker_begins_another_episode_until_all_were_begun",
    ),
    Mutant(
        "rollout_masks_rewards_by_a_product",
        "rollout/episodes.py",
        "torch.where(valid, place(rewards), 0.0)",
        "place(rewards) * valid",
        "test_rollout.py::test_an_environment_may_answer_nan_after_an_episode_s_end",
    ),
    Mutant(
        "rollout_graph_runs_on_between_windows",
        "rollout/episodes.py",
        "            lanes.observation = lanes.observation.detach()\n",
        "",
        "test_rollout.py::test_the_graph_is_cut_between_windows",
    ),
    Mutant(
        "rollout_records_what_the_environment_was_given",
        "rollout/episodes.py",
        "action = act(head, dist, graph, deterministic)\n        return action, head.to_env(action)",
        "action = head.to_env(act(head, dist, graph, deterministic))\n        return action, action",
        "test_rollout.py::test_actions_are_recorded_before_they_are_mapped_to_the_space",
    ),
    Mutant(
        "rollout_log_prob_of_what_the_environment_was_given",
        "rollout/episodes.py",
        "(dist.log_prob(action),) if log_probs",
        "(dist.log_prob(given),) if log_probs",
        "test_score_function.py::test_log_probs_of_the_rollout_are_those_of_a_second_pass",
    ),
    Mutant(
        "rollout_deterministic_is_not_passed_on",
        "rollout/episodes.py",
        "act(head, dist, graph, deterministic)",
        "act(head, dist, graph)",
        "test_rollout.py::test_deterministic_rollouts_take_the_head_s_action",
    ),
    Mutant(
        "rollout_names_the_step_before_the_bad_one",
        "rollout/episodes.py",
        "steps - len(episodes.rewards) + row + 1",
        "steps - len(episodes.rewards) + row",
        "test_rollout.py::test_a_torch_reward_that_is_not_finite_names_step_action_and_seed",
    ),
    Mutant(
        "evaluation_counts_the_last_of_the_episodes",
        "rollout/evaluation.py",
        "torch.cat(returns)[:episodes]",
        "torch.cat(returns)[-episodes:]",
        "test_rollout.py::test_evaluate_takes_the_last_round_s_episodes_by_index",
    ),
    # ------------------------------------------------------------------ environments
    Mutant(
        "gymnasium_names_the_lane_instead_of_the_episode",
        "envs/gymnasium_env.py",
        "self.describe_episode(int(self._columns[lane]))",
        "self.describe_episode(int(lane))",
        "test_envs.py::test_the_episode_named_is_the_bad_one_after_others_were_left_out",
    ),
    Mutant(
        "gymnasium_observations_are_views",
        "envs/gymnasium_env.py",
        "single = array.astype(np.float32)",
        "single = array.astype(np.float32, copy=False)",
        "test_envs.py::test_observations_are_copies",
    ),
    Mutant(
        "serial_lanes_step_past_the_end",
        "envs/lanes.py",
        "if playing[lane]:",
        "if True:",
        "test_envs.py::test_an_environment_whose_episode_has_ended_is_not_stepped_by_sync",
    ),
    Mutant(
        "serial_lanes_keep_the_first_rows",
        "envs/lanes.py",
        "self._players[self._rows[lane]]",
        "self._players[lane]",
        "test_lanes.py::test_leaving_lanes_out_changes_no_episode",
    ),
    Mutant(
        "torch_time_limit_comes_a_step_late",
        "envs/torch_env.py",
        "self.steps >= self.max_episode_steps",
        "self.steps > self.max_episode_steps",
        "test_envs.py::test_torch_environments_keep_the_interface",
    ),
    Mutant(
        "torch_reward_of_the_next_state",
        "envs/torch_env.py",
        "self.dynamics.reward(state, actions, following)",
        "self.dynamics.reward(following, actions, following)",
        "test_rollout.py::test_the_graph_of_a_rollout_is_that_of_the_unrolled_loop",
    ),
    Mutant(
        "torch_ended_episodes_go_on",
        "envs/torch_env.py",
        "torch.where(terminated.unsqueeze(-1), start, following)",
        "following",
        "test_rollout.py::test_what_happens_after_an_episode_s_end_does_not_reach_the_gradient",
    ),
    Mutant(
        "torch_weights_ignore_the_start_of_the_space",
        "envs/dynamics/base.py",
        "one_hot(actions - int(space.start), int(space.n))",
        "one_hot(actions, int(space.n))",
        "test_estimators_relaxed.py::test_choices_count_from_the_start_of_the_space",
    ),
    Mutant(
        "pendulum_is_stepped_explicitly",
        "envs/dynamics/pendulum.py",
        "torch.stack((angle + velocity * self.dt, velocity)",
        "torch.stack((angle + state[:, 1] * self.dt, velocity)",
        "test_envs.py::test_a_twin_equals_the_original_from_random_states",
    ),
    Mutant(
        "acrobot_pays_for_its_last_step",
        "envs/dynamics/acrobot.py",
        "self.terminal(next_state).to(next_state) - 1.0",
        "self.terminal(state).to(next_state) - 1.0",
        "test_envs.py::test_a_twin_equals_the_original_from_random_states",
    ),
    Mutant(
        "lqr_chain_pulls_the_wrong_way",
        "envs/dynamics/lqr.py",
        "-dt * coupling * chain.double()",
        "dt * coupling * chain.double()",
        "test_envs.py::test_lqr_axes_are_double_integrators",
    ),
    Mutant(
        "lqr_policy_cost_without_noise",
        "envs/dynamics/lqr.py",
        "moment = closed @ moment @ closed.T + self.B @ torch.diag(noise.square()) @ self.B.T",
        "moment = closed @ moment @ closed.T",
        "test_verify_problems.py::test_the_lqr_agrees_with_its_own_closed_form",
    ),
    # ------------------------------------------------------------------ distributions, policy
    Mutant(
        "box_density_per_share_of_the_range",
        "distributions/box.py",
        "self.log_density(lower, upper) - self.width.log()",
        "self.log_density(lower, upper)",
        "test_distributions.py::test_log_prob_equals_scipy",
    ),
    Mutant(
        "box_actions_are_not_clipped",
        "distributions/box.py",
        "return action.clamp(self.low, self.high)",
        "return action",
        "test_distributions.py::test_actions_are_clipped_for_the_environment_only",
    ),
    Mutant(
        "normal_std_not_in_units_of_the_box",
        "distributions/location_scale.py",
        "self.box.half_range * std",
        "std",
        "test_distributions.py::test_initial_std_is_in_units_of_half_the_range",
    ),
    Mutant(
        "normal_mean_of_another_range",
        "distributions/location_scale.py",
        "self.box.middle + self.box.half_range * mean",
        "self.box.half_range * mean",
        "test_distributions.py::test_a_bounded_mean_stays_in_the_box",
    ),
    Mutant(
        "tanh_normal_jacobian_of_the_wrong_sign",
        "distributions/tanh_normal.py",
        "normal - math.log(2.0) - log_lower - log_upper",
        "normal + math.log(2.0) + log_lower + log_upper",
        "test_distributions.py::test_log_prob_equals_scipy",
    ),
    Mutant(
        "tanh_normal_deterministic_is_not_squashed",
        "distributions/tanh_normal.py",
        "self.at((2.0 * self.loc).sigmoid(), (-2.0 * self.loc).sigmoid())",
        "self.at(self.loc.sigmoid(), (-self.loc).sigmoid())",
        "test_distributions.py::test_the_deterministic_action_is_the_mean_or_the_median",
    ),
    Mutant(
        "beta_concentrations_change_places",
        "distributions/beta.py",
        "(self.alpha - 1.0) * lower.log() + (self.beta - 1.0) * upper.log() - log_normalizer",
        "(self.beta - 1.0) * lower.log() + (self.alpha - 1.0) * upper.log() - log_normalizer",
        "test_distributions.py::test_log_prob_equals_scipy",
    ),
    Mutant(
        "binomial_mode_is_the_mean",
        "distributions/counts.py",
        "((counts.total_count + 1) * counts.probs).floor()",
        "(counts.total_count * counts.probs).floor()",
        "test_distributions.py::test_the_deterministic_action_is_the_most_probable",
    ),
    Mutant(
        "categorical_forgets_the_start_of_the_space",
        "distributions/categorical.py",
        "return action + self._start",
        "return action",
        "test_distributions.py::test_to_env_adds_the_start_of_the_space",
    ),
    Mutant(
        "correlated_normal_volume_of_the_wrong_sign",
        "distributions/multivariate_normal.py",
        "self.vectors.log_prob(vectors) - self._log_volume()",
        "self.vectors.log_prob(vectors) + self._log_volume()",
        "test_distributions.py::test_log_prob_equals_scipy",
    ),
    Mutant(
        "monte_carlo_entropy_has_no_gradient",
        "distributions/base.py",
        "return -value - value * (log_prob - value)",
        "return -log_prob",
        "test_distributions.py::test_the_monte_carlo_entropy_has_the_gradient_of_the_entropy",
    ),
    Mutant(
        "normaliser_forgets_how_batches_differ",
        "policy.py",
        "(new - mean).square().sum(dim=0) + delta.square() * self.count * number / total",
        "(new - mean).square().sum(dim=0)",
        "test_policy.py::test_the_normaliser_equals_numpy_after_batches_of_any_size",
    ),
    Mutant(
        "normaliser_by_the_unbiased_deviation",
        "policy.py",
        "self.squares / self.count.clamp(min=1.0)",
        "self.squares / (self.count - 1.0).clamp(min=1.0)",
        "test_policy.py::test_the_normaliser_equals_numpy_after_batches_of_any_size",
    ),
    Mutant(
        "normaliser_does_not_clip",
        "policy.py",
        "return scaled.clamp(-10.0, 10.0)",
        "return scaled",
        "test_policy.py::test_normalised_observations_are_clipped_at_10_and_constants_do_not_blow_up",
    ),
    Mutant(
        "tanh_derivative_of_its_input",
        "policy.py",
        "torch.ops.aten.tanh_backward(gradient, out)",
        "gradient * (1.0 - out)",
        "test_policy.py::test_the_tanh_of_a_torso_is_tanh",
    ),
    Mutant(
        "output_scale_of_the_whole_policy",
        "policy.py",
        "for layer in policy.head.modules():",
        "for layer in policy.modules():",
        "test_policy.py::test_output_scale_multiplies_the_head_s_layers_alone",
    ),
    # ------------------------------------------------------------------ baselines
    Mutant(
        "mean_of_others_divides_by_all",
        "baselines/means.py",
        "others = valid.sum(dim=1, keepdim=True) - valid.long()",
        "others = valid.sum(dim=1, keepdim=True)",
        "test_baselines.py::test_leave_one_out_by_hand",
    ),
    Mutant(
        "mean_of_others_contains_the_sample",
        "baselines/means.py",
        "(x.sum(dim=1, keepdim=True) - x) / others",
        "x.sum(dim=1, keepdim=True) / (others + 1)",
        "test_baselines.py::test_a_baseline_of_others_knows_nothing_of_an_episode",
    ),
    Mutant(
        "mean_of_others_over_padding",
        "baselines/means.py",
        "(x * valid).double()",
        "x.double()",
        "test_baselines.py::test_a_baseline_of_others_does_not_look_beyond_an_episode_s_end",
    ),
    Mutant(
        "batch_mean_over_padding",
        "baselines/means.py",
        "/ episodes.valid.sum()",
        "/ returns.numel()",
        "test_baselines.py::test_batch_mean_by_hand",
    ),
    Mutant(
        "batch_mean_corrected_the_wrong_way",
        "baselines/means.py",
        "advantages * (number / (number - 1))",
        "advantages * ((number - 1) / number)",
        "test_baselines.py::test_the_correction_multiplies_the_advantages_by_n_over_n_minus_1",
    ),
    Mutant(
        "moving_average_over_padding",
        "baselines/means.py",
        "returns.detach()[episodes.valid]",
        "returns.detach().flatten()",
        "test_baselines.py::test_a_moving_average_is_the_weighed_mean_of_earlier_batches",
    ),
    Mutant(
        "optimal_constant_contains_the_sample",
        "baselines/optimal_constant.py",
        "others = 1.0 - torch.eye(number, dtype=torch.float64, device=returns.device)",
        "others = torch.ones(number, number, dtype=torch.float64, device=returns.device)",
        "test_baselines.py::test_the_optimal_constant_is_the_loop_over_the_other_episodes",
    ),
    Mutant(
        "self_critical_samples",
        "baselines/self_critical.py",
        "rollout(env, policy, seed, deterministic=True)",
        "rollout(env, policy, seed)",
        "test_baselines.py::test_self_critical_plays_the_deterministic_policy_from_the_same_resets",
    ),
    Mutant(
        "value_bootstraps_only_truncations",
        "baselines/value.py",
        "self.value(episodes.last_observations) * ~episodes.terminated",
        "self.value(episodes.last_observations) * episodes.truncated",
        "test_pathwise.py::test_pathwise_reaches_the_policy_through_the_bootstrap",
    ),
    Mutant(
        "value_bootstraps_terminations",
        "baselines/value.py",
        "self.value(episodes.last_observations) * ~episodes.terminated",
        "self.value(episodes.last_observations)",
        "test_baselines.py::test_last_values_are_zero_after_a_termination_alone",
    ),
    Mutant(
        "value_fit_reaches_the_returns_graph",
        "baselines/value.py",
        "targets = returns.detach()[episodes.valid]",
        "targets = returns[episodes.valid]",
        "test_baselines.py::test_fit_leaves_the_graph_of_the_returns_alone",
    ),
    Mutant(
        "value_explained_variance_after_the_fit",
        "baselines/value.py",
        '{"baseline/explained_variance": before,',
        '{"baseline/explained_variance": explained_variance(self.value(observations), targets).detach(),',
        "test_baselines.py::test_the_explained_variance_is_that_of_the_predictions_before_the_fit",
    ),
    # ------------------------------------------------------------------ estimators
    Mutant(
        "score_function_means_over_steps",
        "estimators/score_function.py",
        "(log_prob * advantage).sum() / number",
        "(log_prob * advantage).mean()",
        "test_score_function.py::test_the_score_function_is_the_textbook_s_loop",
    ),
    Mutant(
        "score_function_goes_downhill",
        "estimators/score_function.py",
        "loss = -(log_prob * advantage)",
        "loss = (log_prob * advantage)",
        "test_score_function.py::test_the_score_function_is_the_textbook_s_loop",
    ),
    Mutant(
        "a_kept_graph_is_not_used",
        "estimators/score_function.py",
        "log_prob = episodes.steps_of(episodes.log_probs)",
        "log_prob = episodes.steps_of(episodes.log_probs.detach())",
        "test_score_function.py::test_log_probs_of_the_rollout_are_those_of_a_second_pass",
    ),
    Mutant(
        "score_function_drops_the_bootstrap",
        "estimators/score_function.py",
        "return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)",
        "return reward_to_go(episodes.rewards, episodes.is_last, gamma)",
        "test_score_function.py::test_last_values_bootstrap_the_score_function_s_returns",
    ),
    Mutant(
        "running_normalisation_by_this_batch",
        "estimators/score_function.py",
        "for moments in (self.moments, own):",
        "for moments in (own, self.moments):",
        "test_score_function.py::test_running_normalisation_divides_by_the_deviation_of_earlier_returns_else_by_its_own",
    ),
    Mutant(
        "entropy_bonus_of_the_wrong_sign",
        "estimators/score_function.py",
        "loss = loss - self.entropy_coefficient",
        "loss = loss + self.entropy_coefficient",
        "test_score_function.py::test_the_entropy_bonus_is_the_mean_over_episodes_of_the_sum_over_valid_steps",
    ),
    Mutant(
        "entropy_bonus_is_a_mean_over_steps",
        "estimators/score_function.py",
        "entropies.mean() * episodes.valid.sum()",
        "entropies.mean() * episodes.valid.shape[1]",
        "test_score_function.py::test_the_entropy_bonus_is_the_mean_over_episodes_of_the_sum_over_valid_steps",
    ),
    Mutant(
        "pathwise_differentiates_all_returns",
        "estimators/pathwise.py",
        "-advantages[0].mean()",
        "-advantages.mean()",
        "test_pathwise.py::test_pathwise_differentiates_the_mean_of_the_first_returns",
    ),
    Mutant(
        "pathwise_drops_what_follows_a_window",
        "estimators/pathwise.py",
        "reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)",
        "reward_to_go(episodes.rewards, episodes.is_last, gamma)",
        "test_pathwise.py::test_pathwise_reaches_the_policy_through_the_bootstrap",
    ),
    Mutant(
        "parts_of_a_loss_count_alike",
        "update.py",
        "yield loss * (part.valid.shape[1] / number),",
        "yield loss * (size / number),",
        "test_score_function.py::test_the_parts_of_a_loss_add_up_to_it",
    ),
    Mutant(
        "metrics_of_parts_count_by_episodes",
        "update.py",
        "share = part.valid.sum() / valid_steps",
        "share = part.valid.shape[1] / number",
        "test_score_function.py::test_the_parts_of_a_loss_add_up_to_it",
    ),
    Mutant(
        "alpha_order_weighs_the_wrong_estimate",
        "estimators/alpha_order.py",
        "zeroth / (zeroth + first)",
        "first / (zeroth + first)",
        "test_estimators_mixed.py::test_the_weight_minimises_the_variance_within_the_bound",
    ),
    Mutant(
        "alpha_order_forgets_gamma_of_the_score",
        "estimators/alpha_order.py",
        "of_log_probs = powers * advantages.detach()",
        "of_log_probs = advantages.detach()",
        "test_estimators_mixed.py::test_the_alpha_order_gradient_is_the_mix_of_its_parts",
    ),
    Mutant(
        "ivw_h_variances_over_padding",
        "estimators/ivw_h.py",
        "deviations = torch.where(mask, samples - mean.unsqueeze(1), 0.0)",
        "deviations = samples - mean.unsqueeze(1)",
        "test_estimators_mixed.py::test_ivw_h_weighs_every_step_and_entry_by_the_variances_of_its_running_episodes",
    ),
    Mutant(
        "action_gradient_divides_by_the_deviation",
        "estimators/action_gradients.py",
        "(episodes.actions - loc) / scale.square()",
        "(episodes.actions - loc) / scale",
        "test_estimators_mixed.py::test_action_gradients_are_total_derivatives",
    ),
    Mutant(
        "branches_share_their_start",
        "estimators/measure_valued.py",
        "table[start, ..., time - start] = row",
        "table[start, ..., time] = row",
        "test_measure_valued.py::test_the_mean_gradient_is_the_exact_gradient_of_a_random_mdp",
    ),
    # ------------------------------------------------------------------ verify
    Mutant(
        "tabular_terminal_states_are_worth_something",
        "verify/problems.py",
        "self.dynamics.R + gamma * (living * values)",
        "self.dynamics.R + gamma * values",
        "test_verify_problems.py::test_dynamic_programming_is_the_sum_over_all_trajectories",
    ),
    Mutant(
        "lqr_discounts_from_the_first_step",
        "verify/problems.py",
        "total, discount = torch.zeros((), dtype=torch.float64), 1.0",
        "total, discount = torch.zeros((), dtype=torch.float64), gamma",
        "test_verify_problems.py::test_the_objective_is_the_mean_return_of_real_episodes",
    ),
    Mutant(
        "mixed_does_not_discount",
        "verify/problems.py",
        "return first + gamma * ((1.0 - share) * tails + share * heads)",
        "return first + ((1.0 - share) * tails + share * heads)",
        "test_verify_problems.py::test_mixed_in_closed_form_for_sure_actions",
    ),
    Mutant(
        "power_of_other_degrees_of_freedom",
        "verify/statistics.py",
        "ncfdtr(dimensions, batches - dimensions, noncentrality, critical)",
        "ncfdtr(dimensions, batches - 1, noncentrality, critical)",
        "test_verify_statistics.py::test_power_without_a_difference_is_the_false_alarm_rate",
    ),
    Mutant(
        "detectable_bias_is_squared",
        "verify/statistics.py",
        "math.sqrt(high / (number * strength))",
        "high / (number * strength)",
        "test_verify_statistics.py::test_detectable_bias_is_the_inverse_of_batches_needed",
    ),
    Mutant(
        "z_scores_of_a_batch",
        "verify/statistics.py",
        "difference * number**0.5 / std",
        "difference / std",
        "test_verify_statistics.py::test_z_scores_by_hand",
    ),
    Mutant(
        "standard_error_of_a_batch",
        "verify/check.py",
        "(self.covariance.diagonal() / self.batches).sqrt()",
        "self.covariance.diagonal().sqrt()",
        "test_verify.py::test_a_report_in_words",
    ),
    Mutant(
        "labels_pass_only_if_biased",
        "verify/check.py",
        "return bool(self.labels) or not self.is_flagged",
        "return bool(self.labels) == self.is_flagged",
        "test_verify.py::test_a_report_in_words",
    ),
    Mutant(
        "samples_of_windows_replace_each_other",
        "verify/samples.py",
        "total -= gradient",
        "total = -gradient",
        "test_verify.py::test_each_window_of_a_batch_adds_its_gradient",
    ),
    Mutant(
        "samples_of_one_rollout_overlap",
        "verify/samples.py",
        "slice(index * episodes, (index + 1) * episodes)",
        "slice(index, index + episodes)",
        "test_verify.py::test_a_batch_of_a_long_rollout_is_a_batch_of_its_own",
    ),
    Mutant(
        "warm_up_plays_what_is_sampled",
        "verify/samples.py",
        "own_seed = derive_seed(seed, Stream.DIAGNOSTICS, index=1)",
        "own_seed = seed",
        "test_verify.py::test_warming_up_plays_other_episodes_than_are_sampled",
    ),
    # ------------------------------------------------------------------ training
    Mutant(
        "evaluation_is_due_only_at_a_multiple",
        "callbacks/evaluation.py",
        "now // self.env_steps > before // self.env_steps",
        "now % self.env_steps == 0",
        "test_train.py::test_evaluation_comes_after_the_update_that_crosses_its_interval",
    ),
    Mutant(
        "threshold_must_be_beaten",
        "run/schedule.py",
        "mean >= self.threshold",
        "mean > self.threshold",
        "test_train.py::test_a_threshold_that_is_reached_exactly_solves_and_the_first_time_counts",
    ),
    Mutant(
        "budget_must_be_exceeded",
        "run/schedule.py",
        "module.env_steps >= self.max_env_steps",
        "module.env_steps > self.max_env_steps",
        "test_train.py::test_a_budget_that_is_reached_exactly_is_used_up",
    ),
    Mutant(
        "solved_when_last_above_the_threshold",
        "run/schedule.py",
        "if self.solved_at_env_steps is None and self.threshold",
        "if self.threshold",
        "test_train.py::test_a_threshold_that_is_reached_exactly_solves_and_the_first_time_counts",
    ),
    Mutant(
        "best_is_the_latest_of_equals",
        "run/checkpoints.py",
        "mean > self.best",
        "mean >= self.best",
        "test_train.py::test_the_first_of_equal_evaluations_is_the_best",
    ),
    Mutant(
        "best_is_forgotten_at_a_resume",
        "run/checkpoints.py",
        "self.best = best",
        "self.best = None",
        "test_resume.py::test_an_equal_evaluation_after_a_resume_is_no_new_best",
    ),
    Mutant(
        "seal_is_not_compared",
        "run/checkpoints.py",
        "if end != seal(data):",
        "if len(end) != len(seal(data)):",
        "test_run.py::test_any_flipped_bit_is_noticed",
    ),
    Mutant(
        "previous_is_read_before_last",
        "run/checkpoints.py",
        "for name in (LAST, PREVIOUS)]",
        "for name in (PREVIOUS, LAST)]",
        "test_run.py::test_a_damaged_checkpoint_is_named_and_the_one_before_taken",
    ),
    Mutant(
        "best_becomes_previous",
        "run/checkpoints.py",
        " if target.name == LAST else None",
        "",
        "test_run.py::test_only_the_last_checkpoint_becomes_the_one_before",
    ),
    Mutant(
        "written_in_its_place",
        "run/files.py",
        "partial = partial_of(path)",
        "partial = path",
        "test_files.py::test_a_full_disk_costs_nothing_that_was_there",
    ),
    Mutant(
        "mark_of_a_running_process_does_not_count",
        "run/lock.py",
        'return "-" not in (began, words[1]) and began != words[1]',
        "return True",
        "test_files.py::test_one_process_at_a_time_and_a_killed_one_does_not_count",
    ),
    Mutant(
        "number_of_a_process_is_all_that_counts",
        "run/lock.py",
        'return "-" not in (began, words[1]) and began != words[1]',
        "return False",
        "test_files.py::test_a_number_that_another_process_has_by_now_does_not_count",
    ),
    Mutant(
        "half_a_line_stays",
        "run/csv_logger.py",
        "if new or (begins and self.path.exists()):",
        "if new:",
        "test_files.py::test_half_a_line_is_dropped_before_more_is_appended",
    ),
    Mutant(
        "metrics_purged_a_row_too_few",
        "run/csv_logger.py",
        'float(row[header.index("env_steps")]) < end',
        'float(row[header.index("env_steps")]) <= end',
        "test_run.py::test_purge_drops_what_follows_a_checkpoint_and_goes_on",
    ),
    Mutant(
        "metrics_purged_with_the_checkpoint_s_own_row",
        "jobs/trainer.py",
        "module.env_steps + 1 if module.update_index",
        "module.env_steps if module.update_index",
        "test_resume.py::test_resuming_a_finished_run_changes_nothing_but_times",
    ),
    Mutant(
        "digest_without_buffers",
        "run/digest.py",
        "sorted(policy.state_dict().items())",
        "sorted(policy.named_parameters())",
        "test_run.py::test_digest_is_of_names_dtypes_shapes_and_bytes",
    ),
    Mutant(
        "digest_without_shapes",
        "run/digest.py",
        'f"{name} {array.dtype} {tuple(array.shape)}"',
        'f"{name} {array.dtype}"',
        "test_run.py::test_digest_is_of_names_dtypes_shapes_and_bytes",
    ),
    Mutant(
        "range_excludes_its_upper_end",
        "config.py",
        "_number(value) and low <= value <= high)",
        "_number(value) and low <= value < high)",
        "test_config.py::test_ranges",
    ),
    Mutant(
        "range_excludes_its_lower_end",
        "config.py",
        "_whole(value) and low <= value <= high",
        "_whole(value) and low < value <= high",
        "test_config.py::test_ranges",
    ),
    Mutant(
        "true_is_a_number",
        "config.py",
        "isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)",
        "isinstance(value, int | float) and math.isfinite(value)",
        "test_config.py::test_ranges",
    ),
    Mutant(
        "decay_of_1",
        "returns.py",
        "if not 0.0 <= decay < 1.0:",
        "if not 0.0 <= decay <= 1.0:",
        "test_returns.py::test_running_moments_refuse_other_decays",
    ),
    Mutant(
        "learning_rate_falls_from_update_to_update",
        "module.py",
        'group["lr"] = rate * factor',
        'group["lr"] = group["lr"] * factor',
        "test_train.py::test_the_learning_rate_falls_in_a_straight_line_of_env_steps",
    ),
    Mutant(
        "schedule_never_falls",
        "schedules.py",
        "1.0 + progress * (final - 1.0)",
        "1.0 - progress * final",
        "test_train.py::test_the_learning_rate_falls_in_a_straight_line_of_env_steps",
    ),
    Mutant(
        "rounds_of_an_evaluation_start_alike",
        "module.py",
        "derive_seed(streams.seed_of(env_stream), env_stream, index=number)",
        "derive_seed(streams.seed_of(env_stream), env_stream)",
        "test_module.py::test_no_two_rounds_of_an_evaluation_start_alike",
    ),
    Mutant(
        "updates_start_alike",
        "update.py",
        "resets = streams.seed_of(Stream.ENVIRONMENT)",
        "resets = streams._replace(update=0).seed_of(Stream.ENVIRONMENT)",
        "test_module.py::test_no_two_updates_start_alike_or_draw_the_same_noise",
    ),
    Mutant(
        "updates_act_alike",
        "update.py",
        "streams.seed_torch(Stream.ACTION)",
        "streams._replace(update=0).seed_torch(Stream.ACTION)",
        "test_module.py::test_no_two_updates_start_alike_or_draw_the_same_noise",
    ),
    Mutant(
        "signal_of_the_biased_variance",
        "callbacks/gradient_diagnostics.py",
        "/ (len(gradients) - 1) / len(gradients)",
        "/ len(gradients) / len(gradients)",
        "test_diagnostics.py::test_signal_and_variance_by_hand",
    ),
    Mutant(
        "diagnostics_draw_from_the_run_s_generator",
        "callbacks/gradient_diagnostics.py",
        "with torch.random.fork_rng():",
        "if True:",
        "test_diagnostics.py::test_what_is_logged_is_true_of_the_updates",
    ),
    Mutant(
        "steps_effective_by_the_signed_sum",
        "callbacks/gradient_diagnostics.py",
        "weights.abs().sum().square()",
        "weights.sum().square()",
        "test_diagnostics.py::test_weights_of_one_size_are_all_effective_whatever_their_signs",
    ),
    # ------------------------------------------------------------------ of issue R, point 8
    Mutant(
        "nan_check_looks_past_the_end",
        "envs/gymnasium_env.py",
        ".all(axis=1) & looked_at",
        ".all(axis=1)",
        "test_envs.py::test_bad_values_after_an_episode_s_end_are_not_looked_at",
    ),
    Mutant(
        "rollout_does_not_say_who_plays",
        "rollout/lanes.py",
        "step = self.env.step(given, self._playing())",
        "step = self.env.step(given)",
        "test_lanes.py::test_an_environment_whose_episode_has_ended_stands_still",
    ),
    Mutant(
        "nan_check_forgets_who_begins",
        "rollout/lanes.py",
        "return self.alive | self._resetting if self._resets else self.alive",
        "return self.alive",
        "test_lanes.py::test_a_bad_first_observation_of_a_later_episode_is_refused",
    ),
    Mutant(
        "gamma_close_to_1_has_no_label",
        "estimators/score_function.py",
        "discounted, to_go, scaled = gamma < 1.0,",
        "discounted, to_go, scaled = gamma < 0.95,",
        "test_bias.py::test_a_gamma_close_to_1_is_not_1",
    ),
    Mutant(
        "lambda_close_to_1_has_no_label",
        "baselines/value.py",
        "if gae_lambda < 1.0:",
        "if gae_lambda < 0.99:",
        "test_bias.py::test_a_lambda_close_to_1_is_not_1",
    ),
    Mutant(
        "signal_estimated_with_bias",
        "verify/statistics.py",
        "max(0.0, number - rank - 2) / (number - 1)",
        "1.0",
        "test_verify_statistics.py::test_the_signal_is_estimated_without_bias",
    ),
    Mutant(
        "gradients_of_ranks_are_summed",
        "ranks.py",
        "return total / world_size()",
        "return total",
        "test_ranks.py",
    ),
    Mutant(
        "gradients_of_ranks_are_clipped_before_they_are_averaged",
        "estimators/gradients.py",
        "    average_gradients(chosen)\n"
        "    return clip_gradients([parameter.grad for parameter in chosen if parameter.grad is not None], max_norm)\n",
        "    norm = clip_gradients([parameter.grad for parameter in chosen if parameter.grad is not None], max_norm)\n"
        "    average_gradients(chosen)\n"
        "    return norm\n",
        "test_ranks.py",
    ),
    Mutant(
        "gradients_of_value_networks_stay_apart",
        "baselines/value.py",
        "                average_gradients(self.network.parameters())\n",
        "",
        "test_ranks.py",
    ),
    Mutant(
        "baselines_see_the_episodes_of_their_own_process",
        "update.py",
        "everyone, columns = gather_episodes(episodes)",
        "everyone, columns = episodes, slice(None)",
        "test_ranks.py",
    ),
    Mutant(
        "the_check_does_not_clip",
        "verify/samples.py",
        "clip_gradients([gradient], max_grad_norm)",
        "clip_gradients([gradient], None)",
        "test_labels.py::test_the_check_takes_the_gradient_that_is_clipped_in_training",
    ),
    Mutant(
        "clipping_has_no_label",
        "estimators/base.py",
        "if max_grad_norm is not None:\n        labels",
        "if max_grad_norm is None:\n        labels",
        "test_compatibility.py::test_the_labels_of_all_slots_are_put_together",
    ),
    Mutant(
        "entropies_in_the_rewards_have_no_discount",
        "estimators/score_function.py",
        "discounts(len(episodes.valid), gamma).to(entropies)",
        "discounts(len(episodes.valid), 1.0).to(entropies)",
        "test_labels.py::test_entropies_in_the_rewards_are_one_objective_with_them",
    ),
    Mutant(
        "a_resume_may_change_the_discount",
        "jobs/resume.py",
        '*("chunk", "threads",',
        '*("gamma", "chunk", "threads",',
        "test_resume.py::test_several_changes_are_refused_together",
    ),
    Mutant(
        "classes_of_conf_may_stand_anywhere",
        "run/trust.py",
        "if name not in places.of(place)}",
        "if name not in _targets()}",
        "test_security_places.py::test_own_classes_elsewhere_are_refused",
    ),
    Mutant(
        "links_are_written_through",
        "run/reading.py",
        "if stat.S_ISLNK(mode):",
        "if False:",
        "test_security_folders.py::test_every_link_of_a_name_that_a_run_writes_is_found",
    ),
    Mutant(
        "states_of_optimizers_are_not_tried",
        "run/restore.py",
        "optimizer.step()",
        "pass",
        "test_security_checkpoints.py::test_crafted_checkpoints_end_in_a_sentence",
    ),
    # ------------------------------------------------------------------ sweeps
    Mutant(
        "sweeps_a_solved_job_is_not_finished",
        "sweeps/state.py",
        '_DONE = ("solved", "completed")',
        '_DONE = ("completed",)',
        "test_sweep.py::test_the_state_of_a_job_is_that_of_its_folder",
    ),
    Mutant(
        "sweeps_a_failed_job_is_tried_by_the_next_process",
        "sweeps/state.py",
        '_DONE if retry_failed else (*_DONE, "failed")',
        "_DONE",
        "test_sweep.py::test_a_job_is_settled_by_its_status",
    ),
    Mutant(
        "sweeps_a_finished_job_of_another_config_counts",
        "sweeps/plan.py",
        "not in (FINISHED, STOPPED)",
        "not in (STOPPED,)",
        "test_sweep.py::test_a_job_whose_config_has_changed_is_refused_or_run_beside",
    ),
    Mutant(
        "sweeps_a_begun_job_begins_again",
        "jobs/train.py",
        '("auto" if holds_run(directory) else None)',
        "None",
        "test_sweep.py::test_a_signal_ends_the_sweep_and_the_jobs_can_be_resumed",
    ),
    Mutant(
        "sweeps_jobs_share_a_config",
        "sweeps/loader.py",
        "config = copy.deepcopy(self._chosen(",
        "config = (self._chosen(",
        "test_sweep.py::test_configs_of_jobs_are_those_that_hydra_composes",
    ),
    Mutant(
        "sweeps_failures_are_tried_for_ever",
        "sweeps/sweeper.py",
        'self._before = {job.name: stamp(job.folder / "summary.json") for job in retried}',
        "self._before = {job.name: None for job in retried}",
        "test_sweep.py::test_failed_jobs_are_run_again_when_they_are_asked_for",
    ),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package, which passes all tests that are named: or an environment that fails would count as a find."""
    folder = tmp_path_factory.mktemp("mutants")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder)
    outcome = run_tests(folder, {test for mutant in MUTANTS for test in mutant.tests.split()})
    assert outcome.returncode == pytest.ExitCode.OK, outcome.stdout
    return folder


def path_of(test: str) -> str:
    """Where a test file, or a node of it, lies: in whichever suite."""
    file, _, node = test.partition("::")
    (path,) = (ROOT / "tests").rglob(file)
    assert not node or f"def {node.partition('[')[0]}(" in path.read_text(), f"{file} has no {node}"
    return f"{path.relative_to(ROOT)}{'::' if node else ''}{node}"


def run_tests(folder: Path, tests: Iterable[str], **variables: str) -> subprocess.CompletedProcess:
    """pytest on a copy of the package, without plugins, which take a third of its start."""
    own = {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | variables
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    options = ("-x", "-q", "-p", "no:cacheprovider", "-m", "not faults")  # slow ones too, where they are named
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(path_of, tests)],
        cwd=folder,
        env=kept | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,  # of a fault that makes something endless
    )


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_fails_its_tests(copy, mutant):
    path = copy / "src" / "scorepath" / mutant.file
    sound = path.read_text()
    assert sound.count(mutant.old) == 1, stale(mutant)
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        # the bytecode of the sound sources is read, and none of the fault's is left behind
        outcome = run_tests(copy, mutant.tests.split(), PYTHONDONTWRITEBYTECODE="1")
    finally:
        path.write_text(sound)
    assert outcome.returncode != pytest.ExitCode.OK, f"{mutant.name} survives: {mutant.tests} lacks a test that fails."
    # 1 is also the interpreter's own exit code, and that of errors around a test
    assert outcome.returncode == pytest.ExitCode.TESTS_FAILED and "\nFAILED " in outcome.stdout, outcome.stdout


def test_every_fault_can_be_planted():
    """Without running them: a change of the code takes its mutants with it."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        assert (ROOT / "src" / "scorepath" / mutant.file).read_text().count(mutant.old) == 1, stale(mutant)
        assert all(map(path_of, mutant.tests.split()))


def stale(mutant: Mutant) -> str:
    return (
        f"The text of {mutant.name} does not stand exactly once in {mutant.file}: write the same fault into the code "
        f"as it is now.\n{mutant.old}"
    )
