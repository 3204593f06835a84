// Schemas of the ops. Implementations register themselves at the end of csrc/ops/<op>.cpp; fakes and autograd
// lie beside the public function in aesg/ops/<op>.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(aesg, m) {
  m.def(
      "seed_search(Tensor queries, Tensor vectors, int k, Tensor? inv_norm, Tensor? active, int? count, "
      "float min_score, bool exact=False) -> (Tensor scores, Tensor indices)");
  m.def(
      "spread_activation(Tensor seed_indices, Tensor seed_energies, Tensor first_block, Tensor targets, "
      "Tensor strengths, Tensor next_block, Tensor active, Tensor? regions, int hops, float decay, "
      "float facilitation, float source_floor, float transfer_floor, int k, bool jacobian) "
      "-> (Tensor energies, Tensor indices, Tensor jacobian)");
  m.def(
      "spread_activation_backward(Tensor gradients, Tensor indices, Tensor seed_indices, Tensor "
      "seed_energies, "
      "Tensor first_block, Tensor targets, Tensor strengths, Tensor next_block, Tensor active, "
      "Tensor? regions, int hops, float decay, float facilitation, float source_floor, float transfer_floor) "
      "-> Tensor");
  m.def(
      "consolidate_(Tensor(a!) age, Tensor(b!) relevance, Tensor use_frequency, Tensor active, int count, "
      "float relevance_decay, int min_age, float relevance_threshold, int frequency_threshold) -> Tensor");
  m.def(
      "pool_novelty_(Tensor(a!) candidates, Tensor(b!) counts, Tensor(c!) stamps, Tensor(d!) state, "
      "Tensor inputs, float threshold, int birth_count, bool birth_first, Tensor? living=None) "
      "-> (Tensor born, Tensor vectors)");
  m.def(
      "region_search(Tensor queries, Tensor vectors, int k, Tensor inv_norm, Tensor active, Tensor centers, "
      "Tensor heads, Tensor panels, Tensor pending, int probes, int pool, float min_score) "
      "-> (Tensor scores, Tensor indices)");
  m.def(
      "region_add_(Tensor(a!) heads, Tensor(b!) tails, Tensor(c!) panels, Tensor(d!) where, Tensor(e!) used, "
      "Tensor centers, Tensor vectors, Tensor inv_norm, Tensor added) -> Tensor");
  m.def(
      "activate_context(Tensor similarities, Tensor seeds, Tensor? bar, Tensor? primed, Tensor? primed_ids, "
      "Tensor? primed_energies, Tensor vectors, Tensor? ids, Tensor first_block, Tensor targets, "
      "Tensor strengths, Tensor next_block, Tensor active, Tensor? regions, float relative, float priming, "
      "int hops, float decay, float facilitation, float source_floor, float transfer_floor, int k, "
      "bool gather, bool jacobian) -> (Tensor seeds, Tensor similarities, Tensor members, Tensor energies, "
      "Tensor vectors, Tensor jacobian, Tensor seed_vectors)");
  m.def(
      "replay_energies(Tensor queries, Tensor energies, Tensor seeds, Tensor similarities, Tensor jacobian, "
      "Tensor seed_vectors) -> Tensor");
  m.def(
      "replay_energies_backward(Tensor gradients, Tensor queries, Tensor seeds, Tensor similarities, "
      "Tensor jacobian, Tensor seed_vectors) -> Tensor");
  m.def("project_out(Tensor vectors, Tensor direction) -> Tensor");
  m.def("project_out_inv_norm_(Tensor(a!) inv_norm, Tensor vectors, Tensor slots, Tensor direction) -> ()");
  m.def(
      "keep_primary_(Tensor(a!) slots, Tensor(b!) slot_ids, Tensor(c!) slot_energies, Tensor members, "
      "Tensor energies, Tensor ids, int steps) -> ()");
  m.def(
      "note_succession_(Tensor(a!) last_seed, Tensor(b!) last_id, Tensor seeds, Tensor similarities, "
      "Tensor born_slots, Tensor ids, Tensor active, float threshold, int steps, Tensor? newborn=None) "
      "-> (Tensor previous, Tensor current)");
  m.def(
      "follow_(Tensor(a!) first_block, Tensor(b!) targets, Tensor(c!) strengths, Tensor(d!) next_block, "
      "Tensor(e!) counts, Tensor(f!) weights, Tensor(g!) confidences, Tensor(h!) use_counts, Tensor(i!) "
      "tags, "
      "Tensor(j!) sources, Tensor active, Tensor(k!) counters, Tensor previous, Tensor current, "
      "Tensor? order, float initial, float rate, float yield_) -> ()");
  m.def(
      "retire_(Tensor(a!) first_block, Tensor(b!) targets, Tensor(c!) strengths, Tensor(d!) next_block, "
      "Tensor(e!) counts, Tensor(f!) weights, Tensor(g!) confidences, Tensor(h!) use_counts, Tensor(i!) "
      "tags, "
      "Tensor(j!) sources, Tensor(k!) active, Tensor(l!) counters, Tensor doomed) -> Tensor");
  m.def(
      "read_members(Tensor sought, Tensor queries, Tensor likeness_weight, Tensor vectors, Tensor energies) "
      "-> (Tensor found, Tensor mean, Tensor shares)");
  m.def(
      "read_members_backward(Tensor grad_found, Tensor grad_mean, Tensor shares, Tensor sought, "
      "Tensor queries, Tensor likeness_weight, Tensor vectors, Tensor energies) "
      "-> (Tensor sought, Tensor queries, Tensor likeness_weight, Tensor energies)");
  m.def(
      "count_use_(Tensor(a!) use_frequency, Tensor(b!) relevance, Tensor active, Tensor members, "
      "Tensor energies, Tensor? order, float gain) -> ()");
  m.def("coactivation_pairs(Tensor primaries) -> Tensor");
  m.def(
      "coactivate_(Tensor first_block, Tensor targets, Tensor(a!) strengths, Tensor next_block, "
      "Tensor counts, Tensor weights, Tensor(b!) confidences, Tensor(c!) use_counts, Tensor(d!) tags, "
      "Tensor sources, Tensor active, Tensor primaries, Tensor? pairs, float rate) -> ()");
  m.def(
      "pack_rows(Tensor rows, Tensor chosen, Tensor? most) -> (Tensor packed, Tensor places, Tensor count)");
  m.def(
      "bear_(Tensor packed, Tensor count, Tensor neighbors, Tensor cosines, Tensor(a!) vector, Tensor(b!) "
      "id, "
      "Tensor(c!) inv_norm, Tensor(d!) use_frequency, Tensor(e!) relevance, Tensor(f!) age, "
      "Tensor(g!) region_id, Tensor(h!) is_active, Tensor(i!) first_block, Tensor(j!) targets, "
      "Tensor(k!) strengths, Tensor(l!) next_block, Tensor(m!) counts, Tensor(n!) weights, "
      "Tensor(o!) confidences, Tensor(p!) use_counts, Tensor(q!) tags, Tensor(r!) sources, "
      "Tensor(s!) counters, float confidence, float initial_relevance) -> Tensor");
}
