import sys,boto3,re
from botocore.config import Config
