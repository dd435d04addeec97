"""What holds money back: reviews of earnings, an operator's screening of recipients, holds and freezes."""
