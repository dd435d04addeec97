"""What holds money back: reviews of earnings, leaps, an operator's screening, holds and freezes."""
