"""The captioners and the models behind them."""
