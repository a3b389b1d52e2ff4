/* ebm_flags.h - the flags of ebm that set fields: what they are called, what 0 says, which have an effect. It
   is a part of ebm.c. Include it after common.h. */
#ifndef EBM_FLAGS_H
#define EBM_FLAGS_H

/* Fields of E as --energy-KEY VALUE, those of the sampler as --KEY VALUE, and what has a name of its own. */
typedef struct given_fields {
    field_list sampler;
    int n;
    struct { char name[64], flag[72]; const char *value; } energy[MAX_FIELDS];
} given_fields;

/* Flags of their own of fields of the energy. */
static const char *const own_flags[][2] = {
    { "energy", "kind" }, { "objective", "objective" }, { "starts", "starts" },
    { "langevin_steps", "langevin_steps" }, { "policy_tau", "policy_tau" }, { "pretrain", "fit" },
    { "fit_autoencoder", "fit" } };
enum { OWN_FLAGS = (int)(sizeof own_flags / sizeof *own_flags) };

/* In a configuration 0 is the default; typed, it is 0, which of these fields is as good as nothing. */
static const char *energy_zero(const char *name)
{
    static const char *const small[] = { "policy_tau", "gamma", "lr_end", "ema", "reinit", "start_code",
                                         "start_degrees" };
    for (size_t i = 0; i < sizeof small / sizeof *small; ++i)
        if (!strcmp(name, small[i])) return "1e-30";
    return strcmp(name, "base_std") ? NULL : "1e30";
}

static void refuse_kind(const char *value)
{
    static const char *const kinds[] = { "mlp", "resnet", "autoencoder" };
    for (int i = 0; i < 3; ++i) if (!strcmp(value, kinds[i])) return;
    wrong_usage("--energy %.40s: must be one of: mlp resnet autoencoder", value);
}

static bool energy_is_flag(const char *name) { return !strcmp(name, "unit") || !strcmp(name, "relu"); }

static vgs_status energy_parse(const char *name, const char *value, char text[32], vgs_error *err)
{
    vgs_ebm_config scratch = { .gamma = 0 };
    vgs_status st;
    if (!strcmp(name, "kind")) refuse_kind(value);
    st = vgs_ebm_field_set(&scratch, name, value, err);
    vgs_ebm_field_get(&scratch, vgs_ebm_field_find(name), text);
    return st;
}

static bool energy_positive(const char *name)
{
    char allowed[64];
    vgs_ebm_field_allowed(vgs_ebm_field_find(name), allowed);
    return is_positive(allowed) || !strcmp(name, "start_steps");
}

static void energy_field(args *a, given_fields *s, const char *name)
{
    static const field_kind energy = { energy_is_flag, energy_parse, energy_zero, energy_positive };
    const int k = s->n;
    if (k == MAX_FIELDS) wrong_usage("too many options");
    snprintf(s->energy[k].name, sizeof s->energy[k].name, "%.60s", name);
    flag_text(a->key, s->energy[k].flag);
    s->energy[k].value = field_value(a, &energy, name);
    ++s->n;
}

/* --energy-KEY, or a flag of its own; else the sampler's. */
static void field(args *a, given_fields *s)
{
    for (int i = 0; i < OWN_FLAGS; ++i)
        if (args_is(a, own_flags[i][0])) {
            energy_field(a, s, own_flags[i][1]);
            return;
        }
    if (!strncmp(a->key, "energy_", 7) && vgs_ebm_field_find(a->key + 7) >= 0) energy_field(a, s, a->key + 7);
    else if (args_is(a, "sphere")) {
        strcpy(a->key, "on_sphere");
        args_field(a, &s->sampler);
    } else args_field(a, &s->sampler);
}

static int find_given(const given_fields *s, const char *name)
{
    for (int i = s->n - 1; i >= 0; --i)
        if (!strcmp(s->energy[i].name, name)) return i;
    return -1;
}

static const char *given(const given_fields *s, const char *name)
{
    const int i = find_given(s, name);
    return i < 0 ? NULL : s->energy[i].value;
}

/* Whether the field is given by this flag. */
static bool given_as(const given_fields *s, const char *name, const char *flag)
{
    const int i = find_given(s, name);
    return i >= 0 && !strcmp(s->energy[i].flag, flag);
}

/* Whether --KEY of the sampler is given. */
static bool given_field(const given_fields *s, const char *name)
{
    for (int i = 0; i < s->sampler.n; ++i)
        if (!strcmp(s->sampler.at[i].name, name)) return true;
    return false;
}

/* The flag of a field of the energy: as typed, else one of its own, else --energy-KEY. */
static const char *energy_flag(const given_fields *s, const char *name, char flag[72])
{
    char key[72];
    snprintf(key, sizeof key, "energy_%.60s", name);
    for (int i = 0; i < OWN_FLAGS; ++i)
        if (!strcmp(name, own_flags[i][1])) strcpy(key, own_flags[i][0]);
    if (find_given(s, name) < 0) return flag_text(key, flag);
    return strcpy(flag, s->energy[find_given(s, name)].flag);
}

/* The library's message with its fields as flags: ebm.lr is --energy-lr. */
static const char *typed_energy(const given_fields *s, const char *msg, char text[TYPED])
{
    char first[TYPED], name[64], flag[72];
    const char *p = typed(msg, first);
    size_t at = 0;
    while (*p && at + sizeof flag < TYPED) {
        size_t n = strncmp(p, "ebm.", 4) ? 0 : strspn(p + 4, "abcdefghijklmnopqrstuvwxyz_");
        if (n && n < sizeof name) {
            snprintf(name, sizeof name, "%.*s", (int)n, p + 4);
            at += (size_t)snprintf(text + at, TYPED - at, "%s", energy_flag(s, name, flag));
            p += 4 + n;
        } else text[at++] = *p++;
    }
    text[at] = '\0';
    return text;
}

/* ---- which have an effect ---- */

static bool has_vgs(const vgs_ebm_config *c)
{
    return c->objective == VGS_CD || c->objective == VGS_GCD || c->objective == VGS_DXMI;
}
static bool has_no_vgs(const vgs_ebm_config *c) { return !has_vgs(c); }
static bool has_chain(const vgs_ebm_config *c)
{
    return c->objective == VGS_LANGEVIN || c->objective == VGS_PERSISTENT;
}
static bool is_discrepancy(const vgs_ebm_config *c) { return c->objective == VGS_DISCREPANCY; }
static bool has_negatives(const vgs_ebm_config *c) { return !is_discrepancy(c); }
static bool is_persistent(const vgs_ebm_config *c) { return c->objective == VGS_PERSISTENT; }
static bool is_dxmi(const vgs_ebm_config *c) { return c->objective == VGS_DXMI; }
static bool starts_at_data(const vgs_ebm_config *c)
{
    return c->starts == VGS_STARTS_DATA || c->starts == VGS_STARTS_NEAR ||
           (c->starts == VGS_STARTS_STORE && c->objective == VGS_CD);
}
static bool has_store(const vgs_ebm_config *c) { return starts_at_data(c) || is_persistent(c); }
static bool is_near(const vgs_ebm_config *c) { return c->starts == VGS_STARTS_NEAR && !(c->start_code > 0); }
static bool is_autoencoder(const vgs_ebm_config *c) { return c->net.kind == VGS_NET_AUTOENCODER; }
static bool is_confined(const vgs_ebm_config *c) { return !is_autoencoder(c) && !c->sampler.on_sphere; }
static bool is_resnet(const vgs_ebm_config *c) { return c->net.kind == VGS_NET_RESNET || c->shared; }
static bool is_mlp(const vgs_ebm_config *c) { return c->net.kind == VGS_NET_MLP || c->shared; }
static bool falls(const vgs_ebm_config *c) { return c->decay > 0; }
static bool fits(const vgs_ebm_config *c) { return c->fit > 0; }

static const struct { const char *field; bool (*has)(const vgs_ebm_config *); const char *why; } uses[] = {
    { "langevin_steps", has_chain, "only --objective langevin and persistent take such steps" },
    { "langevin_step", has_no_vgs, "only objectives without VGS take Langevin steps" },
    { "gamma", has_negatives, "the loss of --objective discrepancy has no gamma" },
    { "divide", has_negatives, "the loss of --objective discrepancy is of E itself" },
    { "limit", has_negatives, "--objective discrepancy has no limit" },
    { "rounds", has_vgs, "only cd, gcd and dxmi have a sampler that learns" },
    { "start_steps", is_near, "needs --starts near, without noise on the code" },
    { "store", has_store, "no rows are kept to start from" },
    { "reinit", is_persistent, "only --objective persistent has it" },
    { "ed_variance", is_discrepancy, "only --objective discrepancy has it" },
    { "ed_weight", is_discrepancy, "only --objective discrepancy has it" },
    { "ed_samples", is_discrepancy, "only --objective discrepancy has it" },
    { "policy_tau", is_dxmi, "only --objective dxmi has it" },
    { "lr_end", falls, "needs --energy-decay: the rate does not fall" },
    { "fit_lr", fits, "there is no pretraining" },
    { "tau_e", is_autoencoder, "only --energy autoencoder has it" },
    { "code", is_autoencoder, "only --energy autoencoder has it" },
    { "unit", is_autoencoder, "only --energy autoencoder has it" },
    { "base_std", is_confined, "only an mlp or a resnet in R^D is confined" },
    { "height", is_resnet, "only --energy resnet has it" },
    { "width", is_resnet, "only --energy resnet has it" },
    { "levels", is_resnet, "only --energy resnet has it" },
    { "x_scale", is_mlp, "only --energy mlp has it" } };

/* Whether a field of the sampler has an effect: without VGS those of E, and of the chain that starts are made
   by. */
static bool field_counts(const vgs_ebm_config *c, const char *name)
{
    static const char *const always[] = { "batch", "tau", "on_sphere", "seed", "length_scale", "detail_scale",
                                          "drift_max" };
    static const char *const chain[] = { "steps", "schedule", "alpha", "s2_start", "s2_end" };
    if (has_vgs(c)) return true;
    for (size_t i = 0; i < sizeof always / sizeof *always; ++i) if (!strcmp(name, always[i])) return true;
    for (size_t i = 0; i < sizeof chain / sizeof *chain; ++i)
        if (!strcmp(name, chain[i])) return starts_at_data(c) || (c->sampler.on_sphere && i == 4);
    return false;
}

/* A flag without effect is more likely a mistake than meant. c: resolved. */
static void refuse_useless(const given_fields *s, const vgs_ebm_config *c)
{
    char flag[72], objective[32];
    for (size_t i = 0; i < sizeof uses / sizeof *uses; ++i)
        if (find_given(s, uses[i].field) >= 0 && !uses[i].has(c))
            wrong_usage("%s: %s", energy_flag(s, uses[i].field, flag), uses[i].why);
    vgs_ebm_field_get(c, vgs_ebm_field_find("objective"), objective);
    for (int i = 0; i < s->sampler.n; ++i)
        if (!field_counts(c, s->sampler.at[i].name))
            wrong_usage("%s: --objective %s has no sampler of steps that learns",
                        flag_text(s->sampler.at[i].name, flag), objective);
}

#endif /* EBM_FLAGS_H */
