"""How well meta-models tell which signals pay: every market, both primaries, walk-forward and purged.

Baselines: AUC 0.5, and the log loss of the constant base rate so far.

    python -m benchmarks.skill [--estimator hist_gradient_boosting]
"""

import argparse

import numpy as np

from backtests.market import UNIVERSES, load_markets
from backtests.primaries import batch_signals
from backtests.run import PRIMARIES
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.settings import ModelSettings, TrainingSettings
from ml4t_actor.training.loop import TrainingLoop


def main(estimator: str = "logistic", *, quick: bool = False) -> None:
    """Print the skill on every market, or on one alone."""
    universes, n_markets = (list(UNIVERSES)[:1], 1) if quick else (list(UNIVERSES), None)
    settings = TrainingSettings(model=ModelSettings(estimator=estimator))  # type: ignore[arg-type]
    print(
        f"{estimator}; horizon {settings.labels.horizon_bars} bars, costs {settings.labels.cost * 1e4:g} bp"
    )
    for primary, make in PRIMARIES.items():
        auc, skill = [], []
        print(f"\n{primary:38} rows    n_eff  base   AUC within side [95 %]   log-loss skill, % [95 %]")
        for universe in universes:
            for market in load_markets(universe)[:n_markets]:
                loop = TrainingLoop(settings, feature_names=META_FEATURE_NAMES)
                scores = loop.train(market.bars, batch_signals(make(), market.bars)).scores
                auc.append(scores.auc_within_side)
                skill.append(100.0 * scores.log_loss_skill)
                a, s = scores.auc_within_side_interval, scores.log_loss_skill_interval
                print(
                    f"{market.name + (' SYNTHETIC' if market.synthetic else ''):36} {scores.n:6} "
                    f"{scores.n_effective:8.0f} {scores.base_rate:.3f}   {auc[-1]:.3f} [{a.low:.3f}, {a.high:.3f}]   "
                    f"{skill[-1]:+.2f} [{100 * s.low:+.2f}, {100 * s.high:+.2f}]  {scores.verdict}"
                )
        print(
            f"{len(auc)} markets: AUC {np.mean(auc):.3f} ({min(auc):.3f} to {max(auc):.3f}), "
            f"skill {np.mean(skill):+.3f} % ({min(skill):+.2f} to {max(skill):+.2f}), "
            f"positive on {sum(value > 0 for value in skill)}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Skill of meta-models on every market.")
    parser.add_argument("--estimator", choices=["logistic", "hist_gradient_boosting"], default="logistic")
    main(parser.parse_args().estimator)
